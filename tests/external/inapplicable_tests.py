"""The tests of transformers that do not apply to this package, each group with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Inapplicable:
    """Tests that are not run.

    Args:
        cases (`tuple[str, ...]`): The mixin, or the classes in `mixin_cases.py` that are concerned.
        reason (`str`): Why the tests do not apply.
        tests (`tuple[str, ...]`): Their names.
    """

    cases: tuple[str, ...]
    reason: str
    tests: tuple[str, ...]


INAPPLICABLE = (
    Inapplicable(
        ("ModelTesterMixin",),
        "The test takes single rows of every tensor. Here a batch is a concatenation of scans, whose rows are voxels "
        "and points. `test_pipeline_uov.py` compares batches with single scans.",
        ("test_batching_equivalence",),
    ),
    Inapplicable(
        ("UOVModelCase",),
        "The test passes `output_attentions` to `forward`, because the text tower has attention. The point network "
        "has none, and refuses the argument; `get_text_features` takes it.",
        ("test_capture_outputs_decorator",),
    ),
    Inapplicable(
        ("ModelTesterMixin",),
        "The test wants two layers at most, to be quick. The network always has eight stages; here they are narrow.",
        ("test_num_layers_is_small",),
    ),
    Inapplicable(
        ("UOVForPreTrainingCase", "UOVForSemanticSegmentationCase"),
        "These cases have no text tower, and so no token embeddings. `UOVModelCase` has one and runs the test.",
        ("test_model_get_set_embeddings",),
    ),
    Inapplicable(
        ("ProcessorTesterMixin",),
        "transformers takes every `feature_extractor` for one of audio. Here it takes scans, as `points`.",
        (
            "test_kwargs_overrides_default_subprocessor_kwargs_2_audio",
            "test_overlapping_text_image_kwargs_handling_2_audio",
            "test_processor_with_multiple_inputs",
            "test_structured_kwargs_nested_from_dict_2_audio",
            "test_subprocessor_defaults_3_audio",
            "test_subprocessor_defaults_preserved_by_kwargs_2_audio",
            "test_unstructured_kwargs_2_audio",
            "test_unstructured_kwargs_batched_2_audio",
        ),
    ),
    Inapplicable(
        ("ProcessorTesterMixin",),
        "The test expects all model inputs from images and text alone. The voxels come from `points`.",
        ("test_model_input_names",),
    ),
    Inapplicable(
        ("ProcessorTesterMixin",),
        "`pixel_values` have one dimension more than those of the image processor: the cameras of a scan.",
        ("test_subprocessor_defaults_1_images",),
    ),
    Inapplicable(
        ("ProcessorTesterMixin",),
        "The test leaves the images of one sample out. All scans of a batch must have the same number of cameras.",
        ("test_processor_text_has_no_visual",),
    ),
)


def markdown() -> str:
    """The table of `docs/conventions.md`."""
    rows = [f"| {_code(group.cases)} | {_code(group.tests)} | {group.reason} |" for group in INAPPLICABLE]
    return "\n".join(["| Cases | Tests | Reason |", "|---|---|---|", *rows])


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
