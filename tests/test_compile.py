"""`torch.compile` and `Trainer(torch_compile=True)`: convolutions stay as they are, and so do all numbers."""

import copy
import shutil

import pytest
import torch
from small_models import small_segmenter
from test_sparse_unet import random_scan
from transformers import Trainer, TrainingArguments


pytestmark = pytest.mark.slow  # compiling takes a minute

BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++"))]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batches():
    """Scans of different sizes, as the fields of a batch."""
    for seed in range(3):
        coords, features = random_scan(400 + 100 * seed, seed=seed)
        labels = torch.randint(3, (len(coords),), generator=torch.Generator().manual_seed(seed))
        yield {"voxel_coords": coords, "voxel_features": features, "labels": labels}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_trains_and_answers_as_the_plain_one(backend):
    plain = small_segmenter().train()
    ours = copy.deepcopy(plain)
    compiled = torch.compile(ours, backend=backend)
    for batch in batches():
        losses = [model(**batch).loss for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        for loss in losses:
            loss.backward()
    for (name, parameter), other in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(other[1].grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-5, atol=1e-6, msg=name)
    plain.eval(), ours.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(**batch).logits, plain(**batch).logits, rtol=1e-5, atol=1e-5)


def test_the_librarys_trainer_compiles_it(tmp_path):
    arguments = TrainingArguments(
        tmp_path,
        torch_compile=True,
        torch_compile_backend="aot_eager",
        max_steps=3,
        per_device_train_batch_size=1,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        save_strategy="no",
    )
    trainer = Trainer(
        small_segmenter(), arguments, train_dataset=list(batches()), data_collator=lambda samples: samples[0]
    )
    assert trainer.train().training_loss < float("inf")
