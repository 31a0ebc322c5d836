"""UOV models keep the promises of the library (saving, loading, dtypes, outputs) and those of the method."""

import inspect

import pytest
import torch
from small_models import (
    CLASSES,
    PROMPT_TO_CLASS,
    PROMPTS,
    have_same_weights,
    small_batch,
    small_config,
    small_network,
    unit,
)
from transformers import AutoModel, AutoModelForPreTraining, CLIPTextModelWithProjection

from uov_hf import UOVConfig, UOVForPreTraining, UOVForSemanticSegmentation, UOVModel


@pytest.fixture
def scans():
    return small_batch()


def test_the_papers_network_has_its_number_of_parameters():
    with torch.device("meta"):
        model = UOVModel(UOVConfig())
    num_parameters = [sum(weight.numel() for weight in part.parameters()) for part in (model, model.backbone)]
    assert num_parameters == [37_917_472, 37_842_976]


def test_point_embeddings_have_unit_length_and_points_outside_the_grid_none(scans):
    output = UOVModel(small_config()).eval()(**scans)
    outside = scans["point_to_voxel"] == -1
    assert output.point_embeds.shape == (70, 12)
    assert torch.allclose(output.voxel_embeds.norm(dim=1), torch.ones(len(scans["voxel_coords"])))
    assert torch.allclose(output.point_embeds.norm(dim=1), (~outside).float())
    assert torch.equal(output.point_embeds[~outside], output.voxel_embeds[scans["point_to_voxel"][~outside]])


def test_without_points_there_is_an_embedding_for_each_voxel(scans):
    model = UOVModel(small_config()).eval()
    output = model(scans["voxel_coords"], scans["voxel_features"])
    assert torch.equal(output.point_embeds, output.voxel_embeds)
    assert torch.equal(output.point_embeds, model.get_point_features(scans["voxel_coords"], scans["voxel_features"]))
    assert output.logits_per_point is None
    assert torch.equal(model(**scans, return_dict=False)[0], model(**scans).point_embeds)


def test_hidden_states_are_those_of_the_stem_and_of_every_stage(scans):
    model = UOVModel(small_config(stem_channels=4, hidden_sizes=[8, 12, 16, 20, 24, 28, 32, 36])).eval()
    output = model(**scans, output_hidden_states=True)
    assert [len(state.T) for state in output.hidden_states] == [4, 8, 12, 16, 20, 24, 28, 32, 36]
    rows = [len(state) for state in output.hidden_states]
    assert rows[0] == len(scans["voxel_coords"]) and rows == rows[::-1] and rows == sorted(rows[:5])[::-1] + rows[5:]
    sorted_embeds = torch.nn.functional.normalize(model.point_projection(output.hidden_states[-1]), dim=1)
    similarity = sorted_embeds @ output.voxel_embeds.T  # each row of one is a row of the other
    assert torch.allclose(similarity.amax(0), torch.ones(rows[0]), atol=1e-5)
    assert model(**scans).hidden_states is None


@pytest.mark.parametrize("unknown", ["output_attentions", "pixel_values"])
def test_an_argument_that_would_be_ignored_is_refused(scans, unknown):
    with pytest.raises(TypeError, match=unknown):
        UOVModel(small_config())(**scans, **{unknown: True})


def test_the_main_input_is_the_first_argument():
    for model_class in (UOVModel, UOVForPreTraining, UOVForSemanticSegmentation):
        assert list(inspect.signature(model_class.forward).parameters)[1] == model_class.main_input_name


def test_an_empty_batch_has_no_embeddings():
    model = UOVModel(small_config()).eval()
    outside = torch.full((3,), -1)
    output = model(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 1), outside)
    assert output.voxel_embeds.shape == (0, 12)
    assert output.point_embeds.eq(0).all()


@pytest.mark.parametrize("shard_size, num_files", [("1GB", 1), ("20KB", 12)])
def test_a_saved_model_loads_with_its_classes_in_one_file_or_in_shards(tmp_path, shard_size, num_files):
    model = small_network().eval()
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) == num_files
    loaded, info = UOVModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and have_same_weights(model, loaded)
    assert torch.equal(loaded.prompt_to_class, PROMPT_TO_CLASS) and loaded.config.prompts == PROMPTS
    assert loaded.config.id2label == dict(enumerate(CLASSES))
    assert loaded.config.label2id == {name: index for index, name in enumerate(CLASSES)}
    loaded.set_classes(["tree"], unit(1, 12), [0])
    assert loaded.config.prompts == ["tree"] and loaded.config.num_labels == 1


def test_what_a_checkpoint_lacks_is_initialised_as_in_the_paper(tmp_path):
    UOVModel(small_config()).save_pretrained(tmp_path)
    loaded = UOVModel.from_pretrained(tmp_path, prompts=["car"], projection_dim=48, ignore_mismatched_sizes=True)
    weight = loaded.point_projection.weight
    assert 0.8 * 8**-0.5 < weight.abs().max() <= 8**-0.5
    assert loaded.prompt_embeds.eq(0).all()
    assert loaded.prompt_to_class.tolist() == [255]


def test_convolutions_and_projection_start_uniform_with_bound_one_over_root_of_inputs():
    model = UOVModel(small_config(hidden_sizes=[16, 16, 16, 32, 16, 16, 16, 16], stem_channels=32))
    block, up = model.backbone.encoder[0].blocks[0], model.backbone.decoder[0].step
    weights = [(model.point_projection, 16), (block.conv2, 16 * 27), (up.conv, 16 * 8), (model.backbone.stem.conv, 27)]
    for layer, num_inputs in weights:
        bound = num_inputs**-0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_norms_and_prompts_in_full(tmp_path, scans, dtype):
    model = small_network(hidden_sizes=[8, 8, 8, 8, 8, 8, 8, 16]).eval()
    model.save_pretrained(tmp_path)
    half = UOVModel.from_pretrained(tmp_path, dtype=dtype)
    for name, module in half.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert {module.weight.dtype, module.bias.dtype, module.running_var.dtype} == {torch.float32}, name
    assert half.prompt_embeds.dtype == torch.float32
    assert half.point_projection.weight.dtype == half.backbone.stem.conv.weight.dtype == dtype
    embeds = half(**scans).voxel_embeds
    assert embeds.dtype == torch.float32
    assert (embeds * model(**scans).voxel_embeds).sum(dim=1).min() > 0.99


def test_a_pre_trained_checkpoint_loads_as_the_bare_model_and_back(tmp_path):
    uov = small_network()
    model = UOVForPreTraining(uov.config)
    model.uov.load_state_dict(uov.state_dict())
    model.save_pretrained(tmp_path / "pretraining")
    bare, info = AutoModel.from_pretrained(tmp_path / "pretraining", output_loading_info=True)
    assert type(bare) is UOVModel and not any(info.values())
    assert have_same_weights(uov, bare) and bare.config.prompts == PROMPTS
    bare.save_pretrained(tmp_path / "bare")
    back = AutoModelForPreTraining.from_pretrained(tmp_path / "bare")
    assert type(back) is UOVForPreTraining and have_same_weights(model, back)


def test_a_class_scores_as_the_best_of_its_prompts_and_background_only_by_the_switch():
    model, points = small_network(), unit(20, 12)
    cosines = model.config.logit_scale * points @ model.prompt_embeds.T
    expected = torch.stack([cosines[:, [0, 3]].amax(1), cosines[:, 1], cosines[:, 2], cosines[:, 4]], dim=1)
    assert torch.allclose(model.class_scores(points), expected[:, :3], atol=1e-5)
    assert torch.allclose(model.class_scores(points, include_background=True), expected, atol=1e-5)


def test_a_model_without_classes_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="Call `UOVModel.set_classes` first"):
        UOVModel(small_config()).class_scores(unit(2, 12))


@pytest.mark.parametrize("autocast", [False, True])
def test_logits_are_scaled_cosines_with_the_prompts_in_float32(scans, autocast):
    model = small_network().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = model(**scans)
    assert output.logits_per_point.dtype == torch.float32
    torch.testing.assert_close(output.logits_per_point, output.point_embeds @ model.prompt_embeds.T / 0.07)


@pytest.mark.parametrize(
    ("embeds", "classes", "message"),
    [
        (torch.eye(12)[:3], [0, 1], "one class for each of them"),
        (torch.eye(12)[:2, :6], [0, 1], r"must have shape \(2, 12\)"),
        (2 * torch.eye(12)[:2], [0, 1], "must have unit length"),
        (torch.nan * torch.eye(12)[:2], [0, 1], "must have unit length"),
        (torch.eye(12)[:2], [0, 0], "each of the 2 classes"),
        (torch.eye(12)[:3], [0, 1, 2], "each of the 2 classes"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(embeds, classes, message):
    model = UOVModel(small_config())
    with pytest.raises(ValueError, match=message):
        model.set_classes(["car", "road"], embeds, torch.tensor(classes))
    assert model.config.prompts == []


def test_embeddings_of_baked_prompts_are_found_and_other_words_refused():
    model = small_network(teacher="some/clip")
    assert torch.equal(model.get_prompt_features(["sky", "car"]), model.prompt_embeds[[4, 0]])
    with pytest.raises(ValueError, match=r"\['wombat'\] are not among the 5 .* no text tower.*some/clip"):
        model.get_prompt_features(["car", "wombat"])


def text_inputs():
    return {"input_ids": torch.tensor([[1, 7, 9, 2], [1, 5, 2, 2]]), "attention_mask": torch.ones(2, 4).long()}


@pytest.fixture
def tower(clip_folder):
    return CLIPTextModelWithProjection.from_pretrained(clip_folder, projection_dim=8).eval()


def with_tower(tower):
    model = UOVModel(small_config(projection_dim=8, teacher="some/clip")).eval()
    model.set_text_tower(tower, "some/clip")
    return model


def test_the_teachers_text_tower_is_saved_with_the_model(tmp_path, scans, tower):
    model = with_tower(tower)
    model.save_pretrained(tmp_path)
    loaded = UOVModel.from_pretrained(tmp_path)
    assert have_same_weights(model, loaded)
    output = loaded(**scans, **text_inputs())
    assert torch.allclose(output.text_embeds, model.get_text_features(**text_inputs()).pooler_output, atol=1e-6)
    assert output.logits_per_point.shape == (70, 2)
    for trained in (model.train(), loaded.train()):
        assert not trained.text_tower.training
        assert not any(parameter.requires_grad for parameter in trained.text_tower.parameters())


def test_text_features_are_an_output_object_as_those_of_clip(tower):
    model = with_tower(tower)
    output = model.get_text_features(**text_inputs(), output_hidden_states=True)
    expected = tower(**text_inputs(), output_hidden_states=True)
    assert torch.equal(output.pooler_output, torch.nn.functional.normalize(expected.text_embeds, dim=-1))
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert len(output.hidden_states) == 4 and output.attentions is None
    as_tuple = model.get_text_features(**text_inputs(), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[1], output.pooler_output)
    assert model.get_input_embeddings() is tower.get_input_embeddings()
    with pytest.raises(NotImplementedError, match="only where it has a text tower"):
        UOVForPreTraining(small_config()).get_input_embeddings()


def test_another_models_text_tower_is_refused_with_the_reason(tower):
    sources = {"text_tower_source": "other/clip", "teacher": "some/clip"}
    model = UOVModel(small_config(projection_dim=8, text_config=tower.config, **sources))
    with pytest.raises(ValueError, match="the text tower belongs to 'other/clip'.*trained with 'some/clip'"):
        model.get_text_features(**text_inputs())
    with pytest.raises(ValueError, match="has 8 dimensions and this model 12"):
        UOVModel(small_config()).set_text_tower(tower, "other/clip")


def test_without_a_text_tower_tokens_are_refused_with_the_reason(scans):
    with pytest.raises(ValueError, match="`input_ids` cannot be embedded: this model has no text tower"):
        UOVModel(small_config())(**scans, **text_inputs())
