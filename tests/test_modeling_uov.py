"""UOV models keep the promises of the library (saving, loading, dtypes, outputs) and those of the method."""

import copy

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, CLIPTextConfig, CLIPTextModelWithProjection

from uov_hf import UOVConfig, UOVForPreTraining, UOVModel
from uov_hf.losses import pool_superpoints, soft_text_targets, superpixel_superpoint_loss, text_superpoint_loss


SMALL = {"hidden_sizes": [8] * 8, "stem_channels": 8, "projection_dim": 12, "sparse_backend": "torch"}
CLIP_TEXT = CLIPTextConfig(
    vocab_size=60,
    projection_dim=12,
    hidden_size=16,
    intermediate_size=16,
    num_attention_heads=2,
    num_hidden_layers=1,
    max_position_embeddings=16,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)
CLASSES = ["car", "road"]
PROMPTS = ["car", "truck", "road", "sky", "sedan"]
PROMPT_TO_CLASS = torch.tensor([0, 0, 1, 255, 0])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def config(**fields):
    return UOVConfig.from_preset("tiny", **{**SMALL, **fields})


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def scans():
    """Two blobs of voxels, and 70 points in them; every seventh point lies outside the grid."""
    cells = torch.cat([torch.randint(0, 2, (120, 1)), torch.randint(-4, 4, (120, 3))], 1).unique(dim=0).int()
    point_to_voxel = torch.randint(len(cells), (70,))
    point_to_voxel[::7] = -1
    return {
        "voxel_coords": cells,
        "voxel_features": torch.rand(len(cells), 1),
        "point_to_voxel": point_to_voxel,
        "num_points": torch.tensor([30, 40]),
    }


@pytest.fixture
def batch(scans):
    """What training sees: 50 pairs in 6 superpoints of two scenes; superpoint 4 has no pair."""
    superpoint_ids = torch.tensor([0, 1, 2, 3, 5])[torch.randint(5, (50,))]
    return scans | {
        "pair_to_point": torch.randint(70, (50,)),
        "superpoint_ids": superpoint_ids,
        "scene_ids": torch.tensor([0, 0, 0, 1, 1, 1]),
        "segment_embeds": unit(6, 12),
        "segment_labels": torch.tensor([0, 3, 2, 2, 1, 4]),
        "prompt_embeds": unit(5, 12),
        "prompt_groups": torch.tensor([0, 1, 2, 3, 0]),
    }


def with_classes(model):
    embeds = unit(5, 12)
    model.set_classes(CLASSES, embeds, PROMPT_TO_CLASS, PROMPTS)
    return embeds


def same_weights(model, other):
    state, other_state = model.state_dict(), other.state_dict()
    return state.keys() == other_state.keys() and all(torch.equal(state[name], other_state[name]) for name in state)


def test_the_papers_network_has_its_number_of_parameters():
    with torch.device("meta"):
        model = UOVModel(UOVConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 37_917_472


def test_point_embeddings_have_unit_length_and_points_outside_the_grid_none(scans):
    output = UOVModel(config()).eval()(**scans)
    outside = scans["point_to_voxel"] == -1
    assert output.point_embeds.shape == (70, 12)
    assert torch.allclose(output.voxel_embeds.norm(dim=1), torch.ones(len(scans["voxel_coords"])))
    assert torch.allclose(output.point_embeds.norm(dim=1), (~outside).float())
    assert torch.equal(output.point_embeds[~outside], output.voxel_embeds[scans["point_to_voxel"][~outside]])


def test_without_points_there_is_an_embedding_for_each_voxel(scans):
    model = UOVModel(config()).eval()
    output = model(scans["voxel_coords"], scans["voxel_features"])
    assert torch.equal(output.point_embeds, output.voxel_embeds)
    assert torch.equal(output.point_embeds, model.get_point_features(scans["voxel_coords"], scans["voxel_features"]))
    assert output.logits_per_point is None


def test_a_tuple_comes_where_it_is_asked_for(scans):
    model = UOVModel(config()).eval()
    as_tuple = model(**scans, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], model(**scans).point_embeds)


def test_an_empty_batch_has_no_embeddings():
    model = UOVModel(config()).eval()
    outside = torch.full((3,), -1)
    output = model(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 1), outside)
    assert output.voxel_embeds.shape == (0, 12)
    assert output.point_embeds.eq(0).all()


def test_a_saved_model_loads_as_it_was(tmp_path, scans):
    model = UOVModel(config()).eval()
    with_classes(model)
    model.save_pretrained(tmp_path)
    loaded, info = UOVModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert same_weights(model, loaded)
    assert torch.equal(model(**scans).logits_per_point, loaded(**scans).logits_per_point)


def test_a_model_in_shards_loads_as_it_was(tmp_path):
    model = UOVModel(config())
    with_classes(model)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert same_weights(model, UOVModel.from_pretrained(tmp_path))


def test_what_a_checkpoint_lacks_is_initialised_as_in_the_paper(tmp_path):
    UOVModel(config()).save_pretrained(tmp_path)
    loaded = UOVModel.from_pretrained(tmp_path, prompts=["car"], projection_dim=48, ignore_mismatched_sizes=True)
    weight = loaded.point_projection.weight
    assert 0.8 * 8**-0.5 < weight.abs().max() <= 8**-0.5
    assert loaded.prompt_embeds.eq(0).all()
    assert loaded.prompt_to_class.tolist() == [255]


def test_convolutions_and_projection_start_uniform_with_bound_one_over_root_of_inputs():
    model = UOVModel(config(hidden_sizes=[16] * 8))
    block = model.backbone.encoder[0].blocks[0]
    for weight, num_inputs in ((model.point_projection.weight, 16), (block.conv2.weight, 16 * 27)):
        bound = num_inputs**-0.5
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_norms_and_prompts_in_full(tmp_path, scans, dtype):
    model = UOVModel(config(hidden_sizes=[8, 8, 8, 8, 8, 8, 8, 16])).eval()
    with_classes(model)
    model.save_pretrained(tmp_path)
    half = UOVModel.from_pretrained(tmp_path, dtype=dtype)
    for name, module in half.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert {module.weight.dtype, module.bias.dtype, module.running_var.dtype} == {torch.float32}, name
    assert half.prompt_embeds.dtype == torch.float32
    assert half.point_projection.weight.dtype == half.backbone.stem.conv.weight.dtype == dtype
    embeds = half(**scans).voxel_embeds
    assert embeds.dtype == torch.float32
    cosine = (embeds * model(**scans).voxel_embeds).sum(dim=1)
    assert cosine.min() > 0.99


def test_checkpointed_activations_give_the_same_gradients(batch):
    plain = UOVForPreTraining(config()).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    assert checkpointed.is_activation_checkpointing
    for model in (plain, checkpointed):
        model(**batch).loss.backward()
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, atol=1e-6), name


def test_auto_classes_load_the_models(tmp_path):
    UOVForPreTraining(config()).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is UOVModel
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is UOVForPreTraining


def test_a_pre_trained_checkpoint_loads_as_the_bare_model_and_back(tmp_path, scans):
    model = UOVForPreTraining(config()).eval()
    with_classes(model.uov)
    model.save_pretrained(tmp_path / "pretraining")
    bare, info = UOVModel.from_pretrained(tmp_path / "pretraining", output_loading_info=True)
    assert not any(info.values())
    assert same_weights(model.uov, bare)
    assert bare.config.prompts == PROMPTS
    bare.save_pretrained(tmp_path / "bare")
    assert same_weights(model, UOVForPreTraining.from_pretrained(tmp_path / "bare"))


def test_classes_that_were_set_come_back_with_the_checkpoint(tmp_path):
    model = UOVModel(config())
    embeds = with_classes(model)
    model.save_pretrained(tmp_path)
    loaded = UOVModel.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "car", 1: "road"}
    assert loaded.config.label2id == {"car": 0, "road": 1}
    assert loaded.config.prompts == PROMPTS
    assert torch.equal(loaded.prompt_embeds, embeds)
    assert torch.equal(loaded.prompt_to_class, PROMPT_TO_CLASS)
    loaded.set_classes(["tree"], unit(1, 12), [0])
    assert loaded.config.prompts == ["tree"]
    assert loaded.config.num_labels == 1


def test_a_class_scores_as_the_best_of_its_prompts():
    model = UOVModel(config())
    embeds = with_classes(model)
    points = unit(20, 12)
    cosines = points @ embeds.T
    scores = model.class_scores(points)
    expected = torch.stack([cosines[:, [0, 1, 4]].amax(1), cosines[:, 2]], dim=1) * model.config.logit_scale
    assert torch.allclose(scores, expected, atol=1e-5)


def test_background_prompts_compete_only_by_the_switch():
    model = UOVModel(config())
    embeds = with_classes(model)
    at_the_sky = embeds[3:4]
    assert model.class_scores(at_the_sky).shape == (1, 2)
    with_background = model.class_scores(at_the_sky, include_background=True)
    assert with_background.shape == (1, 3)
    assert with_background.argmax() == 2
    assert torch.equal(with_background[:, :2], model.class_scores(at_the_sky))


def test_a_model_without_classes_says_how_to_get_some():
    with pytest.raises(ValueError, match="Bake a vocabulary with `set_classes` first"):
        UOVModel(config()).class_scores(unit(2, 12))


def test_logits_compare_points_with_the_baked_prompts(scans):
    model = UOVModel(config()).eval()
    with_classes(model)
    output = model(**scans)
    expected = output.point_embeds @ model.prompt_embeds.T / 0.07
    assert torch.allclose(output.logits_per_point, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("embeds", "classes", "message"),
    [
        (torch.eye(12)[:3], [0, 1], "one class for each of them"),
        (torch.eye(12)[:2, :6], [0, 1], r"must have shape \(2, 12\)"),
        (2 * torch.eye(12)[:2], [0, 1], "must have unit length"),
        (torch.eye(12)[:2], [0, 0], "each of the 2 classes"),
        (torch.eye(12)[:3], [0, 1, 2], "each of the 2 classes"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(embeds, classes, message):
    model = UOVModel(config())
    with pytest.raises(ValueError, match=message):
        model.set_classes(CLASSES, embeds, torch.tensor(classes))
    assert model.config.prompts == []


def test_baked_words_are_found_and_others_refused_with_the_reason():
    model = UOVModel(config(teacher="some/clip"))
    embeds = with_classes(model)
    assert torch.equal(model.get_prompt_features(["sky", "car"]), embeds[[3, 0]])
    with pytest.raises(ValueError, match=r"\['wombat'\] are not among the 5 .* no text tower.*some/clip"):
        model.get_prompt_features(["car", "wombat"])


def text_inputs():
    return {
        "input_ids": torch.tensor([[1, 7, 9, 2], [1, 5, 2, 2]]),
        "attention_mask": torch.tensor([[1] * 4, [1] * 4]),
    }


def test_the_teachers_text_tower_travels_with_the_model(tmp_path, scans):
    tower = CLIPTextModelWithProjection(CLIP_TEXT).eval()
    model = UOVModel(config(teacher="some/clip")).eval()
    model.set_text_tower(tower, "some/clip")
    model.save_pretrained(tmp_path)
    loaded = UOVModel.from_pretrained(tmp_path)
    assert same_weights(model, loaded)
    output = loaded(**scans, **text_inputs())
    expected = torch.nn.functional.normalize(tower(**text_inputs()).text_embeds, dim=-1)
    assert torch.allclose(output.text_embeds, expected, atol=1e-6)
    assert output.logits_per_point.shape == (70, 2)


def test_the_text_tower_stays_frozen(tmp_path):
    model = UOVModel(config(text_config=CLIP_TEXT, text_tower_source="some/clip", teacher="some/clip"))
    model.save_pretrained(tmp_path)
    for tower in (model.train().text_tower, UOVModel.from_pretrained(tmp_path).train().text_tower):
        assert not tower.training
        assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_another_models_text_tower_is_refused_with_the_reason():
    model = UOVModel(config(text_config=CLIP_TEXT, text_tower_source="other/clip", teacher="some/clip"))
    with pytest.raises(ValueError, match="the text tower is that of 'other/clip'.*trained with 'some/clip'"):
        model.get_text_features(**text_inputs())
    with pytest.raises(ValueError, match="has 12 dimensions and this model 16"):
        UOVModel(config(projection_dim=16)).set_text_tower(CLIPTextModelWithProjection(CLIP_TEXT), "other/clip")


def test_without_a_text_tower_tokens_are_refused_with_the_reason(scans):
    with pytest.raises(ValueError, match="`input_ids` cannot be embedded: this model has no text tower"):
        UOVModel(config())(**scans, **text_inputs())


def loss_by_hand(model, batch):
    """The two terms on explicitly gathered pairs, without the superpoint that has none."""
    model_config = model.config
    points = model.uov.get_point_features(batch["voxel_coords"], batch["voxel_features"], batch["point_to_voxel"])
    in_grid = batch["point_to_voxel"][batch["pair_to_point"]] >= 0
    pairs, ids = batch["pair_to_point"][in_grid], batch["superpoint_ids"][in_grid]
    kept = torch.tensor([superpoint for superpoint in range(6) if (ids == superpoint).any()])
    superpoints = pool_superpoints(points[pairs], ids, 6)[kept]
    image_loss = superpixel_superpoint_loss(superpoints, batch["segment_embeds"][kept], batch["scene_ids"][kept])
    targets = soft_text_targets(batch["prompt_embeds"], batch["prompt_groups"], model_config.hard_text_weight)
    labels = batch["segment_labels"][kept]
    return image_loss, text_superpoint_loss(superpoints, batch["prompt_embeds"], labels, targets), len(kept)


def in_float64(batch):
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


def test_the_pre_training_loss_is_the_half_and_half_of_both_terms(batch):
    model, batch = UOVForPreTraining(config()).double().eval(), in_float64(batch)
    output = model(**batch)
    image_loss, text_loss, num_superpoints = loss_by_hand(model, batch)
    assert output.image_loss.item() == pytest.approx(image_loss.item(), abs=1e-9)
    assert output.text_loss.item() == pytest.approx(text_loss.item(), abs=1e-9)
    assert output.loss.item() == pytest.approx((0.5 * image_loss + 0.5 * text_loss).item(), abs=1e-9)
    assert output.num_superpoints == num_superpoints == 5


def one_scene(batch, scene):
    """The rows of `batch` that are of one scene, renumbered."""
    superpoints = torch.where(batch["scene_ids"] == scene)[0]
    pairs = batch["scene_ids"][batch["superpoint_ids"]] == scene
    renumbered = torch.full((6,), -1)
    renumbered[superpoints] = torch.arange(len(superpoints))
    changed = {name: batch[name][superpoints] for name in ("scene_ids", "segment_embeds", "segment_labels")}
    changed["pair_to_point"] = batch["pair_to_point"][pairs]
    changed["superpoint_ids"] = renumbered[batch["superpoint_ids"][pairs]]
    return batch | changed


def test_with_scene_negatives_the_loss_of_two_scenes_is_their_count_weighted_mean(batch):
    model, batch = UOVForPreTraining(config()).double().eval(), in_float64(batch)
    together = model(**batch)
    apart = [model(**one_scene(batch, scene)) for scene in (0, 1)]
    weighted = sum(output.loss * output.num_superpoints for output in apart) / together.num_superpoints
    assert together.loss.item() == pytest.approx(weighted.item(), abs=1e-9)
    assert together.num_superpoints == sum(output.num_superpoints for output in apart)


def test_with_global_negatives_micro_batches_see_what_one_batch_would(batch):
    whole = UOVForPreTraining(config(negatives="batch")).double().eval()
    parts = UOVForPreTraining(config(negatives="global")).double().eval()
    parts.load_state_dict(whole.state_dict())
    batch = in_float64(batch)
    batch["superpoint_ids"] = torch.arange(50) % 6  # every segment has pairs, as the loop gathers them
    total = 0
    for scene in (0, 1):
        others = batch["segment_embeds"][batch["scene_ids"] != scene]
        output = parts(**one_scene(batch, scene), negative_embeds=others)
        total += output.loss * output.num_superpoints
    assert total.item() / 6 == pytest.approx(whole(**batch).loss.item(), abs=1e-9)


def test_negatives_that_do_not_fit_the_scope_are_refused(batch):
    with pytest.raises(ValueError, match='"scene", which needs `scene_ids`'):
        UOVForPreTraining(config())(**batch | {"scene_ids": None})
    with pytest.raises(ValueError, match='"global", which needs `negative_embeds`'):
        UOVForPreTraining(config(negatives="global")).train()(**batch)
    with pytest.raises(ValueError, match='but it is "batch"'):
        UOVForPreTraining(config(negatives="batch"))(**batch, negative_embeds=unit(2, 12))


@pytest.mark.parametrize("empty", ["no pairs", "all points outside", "no voxels"])
def test_a_batch_without_superpoints_costs_nothing_and_reaches_every_parameter(batch, empty):
    model = UOVForPreTraining(config()).train()
    if empty == "no pairs":
        batch |= {name: batch[name][:0] for name in ("pair_to_point", "superpoint_ids")}
    else:
        batch["point_to_voxel"] = torch.full((70,), -1)
    if empty == "no voxels":
        batch |= {name: batch[name][:0] for name in ("voxel_coords", "voxel_features")}
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == 0
    assert output.num_superpoints == 0
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in model.parameters())


def test_the_loss_is_computed_in_float32_under_autocast(batch):
    model = UOVForPreTraining(config()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert output.loss.dtype == output.image_loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(copy.deepcopy(model)(**batch).loss.item(), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_training_step_repeats_bitwise(batch):
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        model = UOVForPreTraining(config()).train()
        model(**batch).loss.backward()
        runs.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_training_lowers_the_loss_and_reaches_the_text_space(batch):
    model = UOVForPreTraining(config()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(25):
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.7 * losses[0]
