"""The segmenter: its two heads, the loss of method 5, and how it shares checkpoints with the pre-trained network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from small_models import CLASSES, have_same_weights, small_batch, small_config, small_network, small_segmenter, unit
from transformers import AutoModel, AutoModelForSemanticSegmentation

from uov_hf import UOVConfig, UOVForPreTraining, UOVForSemanticSegmentation, UOVModel
from uov_hf.losses import lovasz_softmax
from uov_hf.modeling_uov_segmentation import first_of_each_voxel


@pytest.fixture
def batch():
    """300 points of two scans; every third has no label."""
    labels = torch.randint(3, (300,))
    labels[::3] = 255
    return small_batch(300) | {"labels": labels}


def voxels_of(batch):
    return batch["voxel_coords"], batch["voxel_features"]


def voxel_rows_by_loops(batch):
    """(voxel, point) of every voxel whose first point has a label."""
    rows, met = [], set()
    for point, voxel in enumerate(batch["point_to_voxel"].tolist()):
        if voxel >= 0 and voxel not in met:
            met.add(voxel)
            if batch["labels"][point] != 255:
                rows.append((voxel, point))
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("head", ["linear", "text"])
def test_the_loss_is_cross_entropy_and_lovasz_of_the_first_points_of_voxels(batch, head):
    model = small_segmenter(head).eval()
    output = model(**batch, confidence=(confidence := torch.rand(300)))
    voxels, points = voxel_rows_by_loops(batch)
    logits, labels = output.voxel_logits[voxels], batch["labels"][points]
    losses = F.cross_entropy(logits, labels, reduction="none")
    lovasz = lovasz_softmax(logits.softmax(dim=1), labels)
    weighted = (confidence[points] * losses).sum() / confidence[points].sum()
    assert output.cross_entropy.item() == pytest.approx(weighted.item(), rel=1e-5)
    assert output.loss.item() == pytest.approx((weighted + lovasz).item(), rel=1e-5)
    assert model(**batch).cross_entropy.item() == pytest.approx(losses.mean().item(), rel=1e-5)


def test_points_have_the_logits_of_their_voxels_and_voxels_may_be_labelled_themselves(batch):
    model = small_segmenter().eval()
    output = model(**batch)
    inside = batch["point_to_voxel"] >= 0
    assert torch.equal(output.logits[inside], output.voxel_logits[batch["point_to_voxel"][inside]])
    assert output.logits[~inside].eq(0).all()

    labels, _ = first_of_each_voxel(batch["labels"], None, batch["point_to_voxel"], len(batch["voxel_coords"]))
    per_voxel = model(*voxels_of(batch), labels=labels)
    assert torch.equal(per_voxel.logits, output.voxel_logits) and torch.equal(per_voxel.loss, output.loss)
    assert model(*voxels_of(batch)).loss is None


def test_the_text_head_scores_as_the_pre_trained_network_with_classes_set_later_too(batch, tmp_path):
    uov = small_network().eval()
    inputs = {name: batch[name] for name in ("voxel_coords", "voxel_features", "point_to_voxel")}
    expected = uov.class_scores(uov(**inputs).point_embeds)
    model = UOVForSemanticSegmentation.from_backbone(uov, head="text")
    inside = batch["point_to_voxel"] >= 0
    assert torch.allclose(model(**inputs).logits[inside], expected[inside], atol=1e-5)
    model.uov.set_classes(["bus", "wall"], unit(2, 12), torch.tensor([0, 1]))
    assert model(**inputs).logits.shape == (300, 2)
    model.save_pretrained(tmp_path)
    loaded = UOVForSemanticSegmentation.from_pretrained(tmp_path, id2label={0: "bus", 1: "wall"})
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("head", ["linear", "text"])
def test_a_saved_segmenter_comes_back_whole_and_its_network_loads_alone(batch, head, tmp_path):
    model = small_segmenter(head).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert isinstance(loaded, UOVForSemanticSegmentation) and loaded.config.head == head
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert have_same_weights(AutoModel.from_pretrained(tmp_path), model.uov)


@pytest.mark.parametrize("stage", [UOVModel, UOVForPreTraining])
def test_a_pre_trained_checkpoint_has_a_text_head(stage, batch, tmp_path):
    uov = small_network().eval()
    model = stage(uov.config)
    getattr(model, "uov", model).load_state_dict(uov.state_dict())
    model.save_pretrained(tmp_path)
    loaded, info = UOVForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(loaded.get_voxel_logits(*voxels_of(batch)), uov.get_voxel_logits(*voxels_of(batch)))


def test_a_linear_head_is_loaded_or_initialised_as_linear_layers_are(tmp_path):
    small_segmenter().save_pretrained(tmp_path)
    loaded = UOVForSemanticSegmentation.from_pretrained(tmp_path)
    anew = UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(tmp_path))
    assert have_same_weights(loaded.uov, anew.uov)
    weight = anew.classifier.weight
    bound = weight.shape[1] ** -0.5
    assert not torch.equal(loaded.classifier.weight, weight)
    assert 0 < weight.abs().max() <= bound and weight.std() > bound / 3


def test_other_classes_get_a_new_head_and_drop_the_prompts(tmp_path):
    model = UOVForSemanticSegmentation.from_backbone(small_network(), class_names=["bus", "wall"])
    assert model.classifier.out_features == 2 and model.config.prompts == []
    model.save_pretrained(tmp_path)
    assert UOVForSemanticSegmentation.from_pretrained(tmp_path).config.id2label == {0: "bus", 1: "wall"}
    small_network().save_pretrained(tmp_path)
    same = UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(tmp_path), class_names=CLASSES)
    assert len(same.config.prompts) == len(same.uov.prompt_embeds) == 5


def test_void_is_no_class_unless_it_is_included(batch, tmp_path):
    model = small_segmenter().eval()
    with_void = UOVForSemanticSegmentation(UOVConfig(**{**model.config.to_dict(), "has_void": True})).eval()
    with torch.no_grad():
        with_void.uov.load_state_dict(model.uov.state_dict())
        with_void.classifier.weight.copy_(torch.cat([model.classifier.weight, torch.zeros(1, 8)]))
        with_void.classifier.bias.copy_(torch.cat([model.classifier.bias, torch.tensor([100.0])]))
    with_void.save_pretrained(tmp_path)
    loaded = UOVForSemanticSegmentation.from_pretrained(tmp_path)
    voxels = voxels_of(batch)
    assert loaded.config.num_labels == 3 and loaded.config.id2label == model.config.id2label
    assert torch.equal(loaded.get_voxel_logits(*voxels), model.get_voxel_logits(*voxels))
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert loaded.get_voxel_logits(*voxels, include_void=True).argmax(dim=1).eq(3).all()


def test_only_a_converted_linear_head_has_void(batch):
    with pytest.raises(ValueError, match="needs a head with void"):
        small_segmenter().get_voxel_logits(*voxels_of(batch), include_void=True)
    with pytest.raises(StrictDataclassError, match='`has_void=True` requires `head="linear"`, got "text"'):
        UOVConfig(head="text", has_void=True)
    uov = small_network(head="linear", has_void=True)
    assert UOVForSemanticSegmentation(uov.config).classifier.out_features == 4
    anew = UOVForSemanticSegmentation.from_backbone(uov)
    assert anew.classifier.out_features == 3 and not anew.config.has_void


def test_a_segmenter_without_classes_or_prompts_is_refused():
    nameless = UOVModel(small_config())
    with pytest.raises(ValueError, match="`config.id2label` is empty"):
        UOVForSemanticSegmentation.from_backbone(nameless)
    with pytest.raises(ValueError, match="no vocabulary to score classes by. Call `UOVModel.set_classes` first"):
        UOVForSemanticSegmentation.from_backbone(nameless, head="text", class_names=CLASSES)


@pytest.mark.parametrize("other", [{"id2label": {0: "tree", 1: "car", 2: "driveable_surface"}}, {"num_labels": 5}])
def test_a_text_head_is_not_relabelled_and_a_linear_one_is(other, batch, tmp_path):
    small_segmenter("text").save_pretrained(tmp_path)
    arguments = {"ignore_mismatched_sizes": True, **other}
    with pytest.raises(ValueError, match=r"are for the classes \['car', 'dri.*set_classes.*head=\"linear\""):
        UOVForSemanticSegmentation.from_pretrained(tmp_path, **arguments)
    with pytest.raises(ValueError, match="are for the classes"):
        UOVModel.from_pretrained(tmp_path, **arguments).get_voxel_logits(*voxels_of(batch))
    linear = UOVForSemanticSegmentation.from_pretrained(tmp_path, head="linear", **arguments)
    assert linear.classifier.out_features == linear.config.num_labels == len(linear.config.id2label)
    assert linear(**batch).loss.isfinite() and linear.classifier.weight.std() > 0


def test_a_text_head_without_weights_is_refused_and_not_nan(batch):
    model = small_segmenter("text")
    fresh = UOVForSemanticSegmentation(model.config)
    with pytest.raises(ValueError, match="its prompts have no embeddings. Load weights with `from_pretrained`"):
        fresh(**batch)
    fresh.load_state_dict(model.state_dict())
    assert fresh(**batch).loss.isfinite()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"labels": torch.zeros(299)}, "`labels` must have one entry for each of the 300 rows"),
        ({"confidence": torch.ones(3)}, "`confidence` must have one entry"),
        ({"labels": torch.arange(300) % 4}, "classes from 0 to 2, or 255 for none; got 0 to 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(batch, wrong, message):
    with pytest.raises(ValueError, match=message):
        small_segmenter()(**batch | wrong)


@pytest.mark.parametrize("head", ["linear", "text"])
@pytest.mark.parametrize("empty", ["no labels", "no voxels"])
def test_a_batch_without_labels_costs_nothing_and_reaches_every_parameter(batch, head, empty):
    model = small_segmenter(head).train()
    batch["labels"] = torch.full((300,), 255)
    if empty == "no voxels":
        batch |= {name: batch[name][:0] for name in ("voxel_coords", "voxel_features")}
        batch["point_to_voxel"] = torch.full((300,), -1)
    loss = model(**batch).loss
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert loss.item() == 0
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in trained)


@pytest.mark.parametrize("head", ["linear", "text"])
def test_training_lowers_the_loss_and_repeats_bitwise(batch, head):
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        model, losses = small_segmenter(head).train(), []
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        for _ in range(6):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        runs.append(losses)
    assert runs[0] == runs[1]
    assert runs[0][-1] < runs[0][0]


@pytest.mark.parametrize("head", ["linear", "text"])
def test_heads_and_losses_are_computed_in_float32_under_autocast(batch, head):
    model = small_segmenter(head).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert output.loss.dtype == output.voxel_logits.dtype == torch.float32
    assert output.loss.item() == pytest.approx(copy.deepcopy(model)(**batch).loss.item(), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_steps_with_gradient_checkpointing_end_in_the_same_bits(batch, use_reentrant):
    """Weights and running statistics: a batch that is computed twice counts once in them."""
    plain = small_segmenter().train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    assert checkpointed.is_activation_checkpointing
    for model in (plain, checkpointed):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step in range(20):
            features = batch["voxel_features"] * (1 + step % 7)
            model(**batch | {"voxel_features": features}).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    state, other = plain.state_dict(), checkpointed.state_dict()
    assert [name for name in state if not torch.equal(state[name], other[name])] == []
    assert state["uov.backbone.encoder.0.blocks.0.norm1.num_batches_tracked"] == 20
