"""Pre-training on a real nuScenes keyframe: it learns the teacher's segments, and shuffled ones less well."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from uov_hf import UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.training.tracking import read_log


NUM_STEPS = 30


def shuffle_segment_ids(label_set) -> None:
    """Give every pair the segment of another one, on disk: as many pairs to a segment, but anywhere in the scan."""
    generator = np.random.default_rng(0)
    for path in (label_set / "points" / "paper").glob("*.parquet"):
        table = pq.read_table(path)
        column = table.column_names.index("pair_segment")
        rows = [generator.permutation(row) for row in table["pair_segment"].to_pylist()]
        shuffled = pa.array(rows, type=table.schema.field(column).type)
        pq.write_table(table.set_column(column, table.schema.field(column), shuffled), path, row_group_size=1)


@pytest.mark.slow
def test_the_loss_falls_on_a_real_frame_and_faster_than_with_shuffled_segments(shared_data, run_script, tmp_path):
    frame_of = ["--dataset", "nuscenes", "--data_dir", shared_data / "nuscenes", "--split", "all"]
    clip, labels, shuffled = tmp_path / "clip", tmp_path / "labels", tmp_path / "shuffled"
    run_script("make_tiny_clip.py", "--output_dir", clip, "--projection_dim", 768)
    teacher = ["--teacher", "clip", "--teacher_model_name_or_path", clip]
    run_script("generate_label_set.py", *teacher, *frame_of, "--output_dir", labels)
    run_script("label_points.py", "--label_set", labels, *frame_of)
    shutil.copytree(labels, shuffled)
    shuffle_segment_ids(shuffled)

    falls = {}
    for label_set in (labels, shuffled):
        run_script(
            *["pretrain.py", *frame_of, "--label_set", label_set, "--output_dir", tmp_path / f"{label_set.name}_tmp"],
            *["--max_train_steps", NUM_STEPS, "--per_device_train_batch_size", 1, "--dataloader_num_workers", 0],
            *["--learning_rate", 0.2, "--lr_scheduler_type", "constant", "--checkpointing_steps", NUM_STEPS],
            num_threads=2,
            timeout=1800,
        )
        losses = [record["loss"] for record in read_log(tmp_path / f"{label_set.name}_tmp" / "train_log.jsonl")]
        assert len(losses) == NUM_STEPS
        falls[label_set.name] = np.mean(losses[:5]) - np.mean(losses[-5:])
    assert falls["labels"] > 0.3  # measured with value_path=values: from 5.55 to 5.01
    assert falls["labels"] > falls["shuffled"] + 0.1  # from 5.61 to 5.25

    model, info = UOVModel.from_pretrained(tmp_path / "labels_tmp", output_loading_info=True)
    assert not any(info.values())
    network = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith("text_tower."))
    assert network == 37_917_472
    processor = UOVProcessor.from_pretrained(tmp_path / "labels_tmp")
    frame = load_frames("nuscenes", "all", data_dir=shared_data / "nuscenes")[0]
    with torch.no_grad():
        embeds = model(**processor(points=frame["points"])).point_embeds
        words = model.get_text_features(**processor(text=["a word that is no prompt of the label set"])).pooler_output
    assert torch.allclose(embeds.norm(dim=1), torch.ones(len(frame["points"])), atol=1e-5)
    assert torch.allclose(words.norm(dim=1), torch.ones(1), atol=1e-5)
    state = json.loads((tmp_path / "labels_tmp" / f"checkpoint-{NUM_STEPS}" / "trainer_state.json").read_text())
    log = read_log(tmp_path / "labels_tmp" / "train_log.jsonl")
    assert state["trained_points"] == sum(record["num_points"] for record in log)
    # Augmentation drops a cuboid of up to a fifth of each side, here around a sixth of the points on average.
    assert 0.75 < state["trained_points"] / (NUM_STEPS * len(frame["points"])) <= 1
