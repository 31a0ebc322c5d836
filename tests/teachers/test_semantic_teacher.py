"""The `semantic` teacher against transformers, on tiny models of the real architectures."""

import numpy as np
import pytest
import torch
from ten_steps import losses_of_ten_steps
from tiny_models import draw_images, frame_of, labels_of_pixels, saved, upsampled
from tiny_segmenters import CITYSCAPES, SEGMENTERS, save_tiny_eomt, save_tiny_mobilevit, save_tiny_segformer
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import Teacher, find_teacher, load_teacher
from uov_hf.teachers.images import ScaledImage
from uov_hf.vocabulary import load_vocabulary


ARCHITECTURES = pytest.mark.parametrize("architecture", SEGMENTERS)
QUERIES = ("mask2former", "eomt")
NUSCENES = load_vocabulary("nuscenes")


def load_semantic(folder: str, **arguments) -> Teacher:
    prompts = find_teacher("semantic").fit_vocabulary(NUSCENES, folder).prompts
    return load_teacher("semantic", folder, **{"prompts": prompts} | arguments)


@pytest.fixture(scope="module")
def folder_of(models):
    return lambda architecture: saved(SEGMENTERS[architecture], models)


@pytest.fixture(scope="module")
def run_transformers(folder_of):
    """`run_transformers("eomt", image)` -> the outputs and the image processor, as the documentation of transformers
    shows it."""

    def run(architecture: str, image):
        folder = folder_of(architecture)
        auto = AutoModelForUniversalSegmentation if architecture in QUERIES else AutoModelForSemanticSegmentation
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        with torch.no_grad():
            return auto.from_pretrained(folder)(**processor(image, return_tensors="pt")), processor

    return run


@ARCHITECTURES
def test_each_pixel_has_the_label_and_the_score_of_transformers_own_post_processing(
    run_transformers, folder_of, images, architecture
):
    found = load_semantic(folder_of(architecture)).segment(frame_of(*images))
    for image, segments in zip(images, found, strict=True):
        outputs, processor = run_transformers(architecture, image)
        size = (image.height, image.width)
        [wanted] = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
        assert np.array_equal(labels_of_pixels(segments), wanted.numpy())
        assert len(segments.labels) == len(set(segments.labels.tolist()))

        if architecture in QUERIES:
            [full] = processor.post_process_semantic_segmentation(
                outputs, target_sizes=[size], return_segmentation_scores=True
            )
            scores = full.segmentation_scores.amax(dim=0).clamp(max=1)
        else:
            scores = upsampled(outputs.logits[0], size).double().softmax(dim=0).amax(dim=0)
        means = [scores[wanted == label].mean().item() for label in segments.labels.tolist()]
        np.testing.assert_allclose(segments.scores, means, atol=1e-5)
    assert len({label for segments in found for label in segments.labels.tolist()}) > 2


@pytest.mark.parametrize("architecture", ["segformer", "upernet"])
def test_the_cosine_of_a_segment_and_a_label_is_the_mean_logit_times_a_factor(
    run_transformers, folder_of, images, architecture
):
    teacher = load_semantic(folder_of(architecture))
    labels = teacher.encode_prompts(teacher.prompts)[: len(CITYSCAPES)]
    for image, segments in zip(images, teacher.segment(frame_of(*images)), strict=True):
        outputs, _ = run_transformers(architecture, image)
        logits = upsampled(outputs.logits[0], (image.height, image.width)).double().numpy()
        for row, embeds in enumerate(segments.embeds):
            means = logits[:, segments.segmentation == row + 1].mean(axis=1)
            cosines = labels @ embeds
            # UperNet upsamples its logits twice.
            assert np.corrcoef(cosines, means)[0, 1] > (0.999999 if architecture == "segformer" else 0.99)
            assert cosines.argmax() == segments.labels[row]


def test_an_embedding_is_the_mean_of_the_features_before_the_last_layer(folder_of, images):
    teacher = load_semantic(folder_of("segformer"))
    [segments] = teacher.segment(frame_of(images[0]))
    with teacher.space.record() as features, torch.inference_mode():
        inputs = teacher.segmenter.processor(images[0], return_tensors="pt")
        logits = teacher.model(**inputs).logits
    torch.testing.assert_close(teacher.model.decode_head.classifier(features[-1]), logits)
    dense = upsampled(features[-1][0], (images[0].height, images[0].width))
    for row, embeds in enumerate(segments.embeds):
        mean = dense[:, segments.segmentation == row + 1].double().mean(dim=1).tolist()
        wanted = normalize(torch.tensor([*mean, 1.0, 0.0], dtype=torch.float64), dim=0)
        np.testing.assert_allclose(embeds, wanted, atol=1e-5)


def test_queries_count_by_the_pixels_of_their_masks_and_their_chance_to_be_an_object(
    run_transformers, folder_of, images
):
    teacher = load_semantic(folder_of("mask2former"))
    [segments] = teacher.segment(frame_of(images[0]))
    outputs, _ = run_transformers("mask2former", images[0])
    size = (images[0].height, images[0].width)
    objectness = outputs.class_queries_logits[0].softmax(dim=-1)[:, :-1].sum(dim=-1)
    masks = upsampled(outputs.masks_queries_logits[0].sigmoid(), size)
    hidden = outputs.transformer_decoder_last_hidden_state[0]  # (Q, D)
    for row, embeds in enumerate(segments.embeds):
        inside = masks[:, segments.segmentation == row + 1].sum(dim=1)
        wanted = sum(
            chance * share * torch.cat([query, torch.tensor([1.0, 0.0])])
            for chance, share, query in zip(objectness, inside, hidden, strict=True)
        )
        np.testing.assert_allclose(embeds, normalize(wanted, dim=0), atol=1e-4)


@pytest.mark.parametrize("size", [(90, 160), (160, 90)])
def test_the_squares_that_eomt_cuts_cover_the_image(folder_of, size):
    teacher = load_semantic(folder_of("eomt"))
    prediction = teacher.segmenter.predict(ScaledImage(*draw_images(size)), teacher.space)
    along = size.index(160)
    spans = [piece.area[along] for piece in prediction.pieces]
    assert [(span.start, span.stop) for span in spans] == [(0, 91), (69, 160)]  # 64 of 113 pixels each, 49 apart
    assert all(piece.area[1 - along] == slice(None) for piece in prediction.pieces)


def test_what_the_model_never_predicts_is_orthogonal_to_every_segment(folder_of, images):
    teacher = load_semantic(folder_of("segformer"))
    others = teacher.prompts[len(CITYSCAPES) :]
    assert others == ["barrier", "construction vehicle", "cone", "vehicle trailer", "rail track"]
    embeds = teacher.encode_prompts(teacher.prompts)
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, rtol=1e-5)
    for segments in teacher.segment(frame_of(*images)):
        assert not (segments.embeds @ embeds[len(CITYSCAPES) :].T).any()


def test_a_class_does_not_get_the_embedding_of_a_label_of_no_class(tmp_path):
    """Its own first prompt is the same phrase as that label."""
    (tmp_path / "own.yaml").write_text(
        "name: own\nclasses:\n  - {name: car, prompts: [car]}\n  - {name: cyclist, prompts: [rider]}\n"
        "model_labels:\n  - {class: null, labels: [rider]}\n"
    )
    folder = save_tiny_segformer(tmp_path / "model", labels=["car", "rider"])
    vocabulary = find_teacher("semantic").fit_vocabulary(load_vocabulary(str(tmp_path / "own.yaml")), folder)
    assert (vocabulary.prompts, vocabulary.prompt_to_class.tolist()) == (["car", "rider", "rider"], [0, 255, 1])
    _, rider, cyclist = load_teacher("semantic", folder, prompts=vocabulary.prompts).encode_prompts(vocabulary.prompts)
    assert rider[:-1].any() and not cyclist[:-1].any()


def test_words_beyond_the_labels_need_a_second_model(folder_of, images, tiny_clip):
    folder = folder_of("segformer")
    own = load_semantic(folder)
    with pytest.raises(ValueError, match=r"embeds the 19 labels of .* only, not 'zebra'.*embed_model_name_or_path"):
        own.encode_prompts(["car", "zebra"])
    with_clip = load_semantic(folder, embed_model_name_or_path=tiny_clip, embed_short_side=64)
    assert with_clip.encode_prompts(["zebra"]).shape == (1, with_clip.embed_dim)
    for one, other in zip(own.segment(frame_of(*images)), with_clip.segment(frame_of(*images)), strict=True):
        assert np.array_equal(one.segmentation, other.segmentation) and np.array_equal(one.scores, other.scores)
        assert other.embeds.shape == (len(other.labels), with_clip.embed_dim)
    dense = upsampled(with_clip.space.dense_features([ScaledImage(images[1])])[0], (images[1].height, images[1].width))
    pooled = normalize(dense[:, other.segmentation == 1].sum(dim=1), dim=0)
    np.testing.assert_allclose(other.embeds[0], pooled, atol=1e-5)


@pytest.mark.parametrize("second", [False, True])
def test_a_label_set_names_a_text_model_only_where_there_is_one(folder_of, tiny_clip, tmp_path, second):
    settings = {"embed_model_name_or_path": tiny_clip, "embed_short_side": 64} if second else {}
    folder = folder_of("segformer")
    vocabulary = find_teacher("semantic").fit_vocabulary(NUSCENES, folder)
    teacher = load_semantic(folder, **settings)
    label_set = LabelSet.create(tmp_path, teacher, vocabulary, settings={"cameras": None})
    assert label_set.text_model == ((tiny_clip, None) if second else (None, None))
    assert label_set.class_names == NUSCENES.class_names and label_set.prompts[:19] == CITYSCAPES
    assert label_set.prompt_embeds.shape == (24, teacher.embed_dim)
    assert set(label_set.prompt_to_class.tolist()) == {*range(16), 255}


@ARCHITECTURES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_segments_in_float32(folder_of, images, architecture, dtype):
    plain, half = load_semantic(folder_of(architecture)), load_semantic(folder_of(architecture), dtype=dtype)
    for one, other in zip(plain.segment(frame_of(*images)), half.segment(frame_of(*images)), strict=True):
        assert other.embeds.dtype == other.scores.dtype == np.float32
        # The scores of random weights are close to each other. A SegFormer in bfloat16 has the labels of float32 on
        # 0.47 of the pixels on a processor with AMX, and on 0.98 with the kernels of AVX2. By chance it were 1 / 19.
        least = 0.3 if (architecture, dtype) == ("segformer", torch.bfloat16) else 0.6
        assert (labels_of_pixels(one) == labels_of_pixels(other)).mean() > least
    assert half.settings["dtype"] == str(dtype).removeprefix("torch.")


@ARCHITECTURES
def test_augmented_images_keep_their_geometry(folder_of, images, architecture):
    teacher, frame = load_semantic(folder_of(architecture)), frame_of(*images)
    for augmentation, scale in (("flip", 1), ("scale=0.5", 0.5)):
        for segments, image in zip(teacher.segment(frame | {"augmentation": augmentation}), images, strict=True):
            assert segments.segmentation.shape == (image.height * scale, image.width * scale)


@ARCHITECTURES
@pytest.mark.parametrize("size", [(3, 100), (100, 3), (1, 1)])
def test_images_of_odd_sizes_have_segmentations_of_their_sizes(folder_of, architecture, size):
    [segments] = load_semantic(folder_of(architecture)).segment(frame_of(*draw_images(size)))
    assert segments.segmentation.shape == size and segments.segmentation.all()


@pytest.mark.parametrize("architecture", ["segformer", "mask2former"])
def test_pixels_with_a_low_score_have_no_segment(run_transformers, folder_of, images, architecture):
    teacher = load_semantic(folder_of(architecture))
    scores = teacher.segmenter.predict(ScaledImage(images[0])).scores
    threshold = float(scores.median())
    [plain], [kept] = (
        load_semantic(folder_of(architecture), min_score=limit).segment(frame_of(images[0]))
        for limit in (0.0, threshold)
    )
    assert plain.segmentation.all() and np.array_equal(kept.segmentation > 0, (scores >= threshold).numpy())
    inside = kept.segmentation > 0
    assert np.array_equal(labels_of_pixels(kept)[inside], labels_of_pixels(plain)[inside])


def test_labels_without_names_are_refused_with_the_way_to_name_them(tmp_path):
    folder = save_tiny_segformer(tmp_path, labels=["car", "LABEL_1", "LABEL_2"])
    message = r"'nuscenes' has no class for 2 of the 3 labels of .*: 'LABEL_1', 'LABEL_2'\. Copy the YAML file"
    with pytest.raises(ValueError, match=message):
        load_semantic(folder)


def test_a_model_of_another_kind_is_refused(tiny_clip):
    with pytest.raises(
        ValueError, match="a model of type 'clip', expected a semantic segmenter: .*mask2former.*upern"
    ):
        load_teacher("semantic", tiny_clip, prompts=["car"])
    with pytest.raises(
        ValueError,
        match=r"`semantic` needs `model_name_or_path`.* e\.g\. `--teacher_model_name_or_path nvidia/segformer",
    ):
        load_semantic(None)


def test_an_image_is_not_cropped_although_its_processor_would(models, images):
    """transformers stretches the map of the cropped middle to the size of the image."""
    folder = saved(save_tiny_mobilevit, models)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model, size = AutoModelForSemanticSegmentation.from_pretrained(folder), (images[0].height, images[0].width)
    maps = []
    for crop in (True, False):
        inputs = processor(images[0], return_tensors="pt", do_center_crop=crop)
        with torch.no_grad():
            maps += processor.post_process_semantic_segmentation(model(**inputs), target_sizes=[size])
    [segments] = load_semantic(folder).segment(frame_of(images[0]))
    assert np.array_equal(labels_of_pixels(segments), maps[1].numpy()) and not torch.equal(*maps)


def test_a_processor_that_pads_images_is_refused(tmp_path):
    folder = save_tiny_eomt(tmp_path)
    AutoImageProcessor.from_pretrained(folder, backend="pil", do_pad=True).save_pretrained(folder)
    with pytest.raises(ValueError, match="pads images, .* displaced.* or use --teacher eomt"):
        load_semantic(folder)


def test_words_of_the_caller_are_refused(folder_of):
    with pytest.raises(
        ValueError, match=r"predicts the 19 labels of .* \(road, sidewalk, building, …\), not other wo"
    ):
        load_semantic(folder_of("segformer"), prompts=["car", "road"])


def test_every_model_of_the_teacher_is_frozen(folder_of):
    teacher = load_semantic(folder_of("segformer"))
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    with pytest.raises(RuntimeError, match="no train mode"):
        teacher.model.train()


@ARCHITECTURES
def test_real_images_become_point_labels_that_a_network_learns_from(folder_of, real_frames, tmp_path, architecture):
    folder = folder_of(architecture)
    teacher = load_semantic(folder)
    vocabulary = find_teacher("semantic").fit_vocabulary(NUSCENES, folder)
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={"cameras": None})
    label_set.write(real_frames, teacher)
    label_points(label_set, real_frames)
    row = label_set.read(real_frames.frame_ids[0])
    labels = PointLabels(label_set.folder).read(real_frames.frame_ids[0])["labels"]
    assert set(labels.tolist()) <= {255, *label_set.prompt_to_class[row["segment_labels"]].tolist()}
    losses = losses_of_ten_steps(real_frames, label_set)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
