"""`pipeline("point-cloud-segmentation")`: a label for each point of a scan, among classes given as words."""

import os
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .configuration_uov import IGNORED
from .feature_extraction_uov import as_array
from .modeling_uov import best_of_prompts
from .modeling_uov_segmentation import UOVForSemanticSegmentation
from .processing_uov import UOVProcessor
from .views import average_over_views, views
from .voxel_grid import guess_full_scale


logger = logging.get_logger(__name__)

DEFAULT_TEMPLATE = "a photo of a {}."
WORDS = ("candidate_labels", "candidate_embeds", "hypothesis_template")
READING = ("intensity_max", "num_columns")


class PointCloudSegmentation(TypedDict):
    """The result of [`PointCloudSegmentationPipeline`] for one scan.

    Args:
        segmentation (`np.ndarray` of shape `(num_points,)`, int64):
            Indices into `labels`; 255 for a point without a voxel or below the threshold.
        scores (`np.ndarray` of shape `(num_points,)`, float32): Probability of the label among all candidates.
        labels (`list[str]`): The candidates, or the classes of the checkpoint.
        top_labels, top_scores (`np.ndarray` of shape `(num_points, top_k)`, int64 and float32, *optional*):
            The best labels, best first, and their probabilities, regardless of the threshold; only with `top_k`.
    """

    segmentation: np.ndarray
    scores: np.ndarray
    labels: list[str]
    top_labels: NotRequired[np.ndarray]
    top_scores: NotRequired[np.ndarray]


class _Scan(TypedDict):
    """A scan between `preprocess` and `_forward`: points `(num_points, 3 or more)` and the words to choose from."""

    points: np.ndarray
    intensity_max: float | None
    candidate_labels: str | list[str] | None
    candidate_embeds: Mapping[str, Any] | None
    hypothesis_template: str | None


class _VoxelLogits(TypedDict):
    """A scan between `_forward` and `postprocess`: logits of its voxels or points, and the row of each point."""

    points: np.ndarray
    point_to_voxel: torch.Tensor
    logits: torch.Tensor
    labels: list[str]


@dataclass(frozen=True)
class _Vocabulary:
    """Candidate labels, the embeddings `(P, D)` of their prompts, and the label `(P,)` of each prompt."""

    labels: list[str]
    prompt_embeds: torch.Tensor
    prompt_to_label: torch.Tensor


class PointCloudSegmentationPipeline(Pipeline):
    """Classify every point of lidar scans.

    ```python
    from transformers import pipeline
    import uov_hf

    segmenter = pipeline("point-cloud-segmentation", model="out/uov")
    result = segmenter("scan.bin", candidate_labels=["car", "road", "tree"])
    result["labels"][result["segmentation"][0]]  # the class of the first point
    ```

    Without `candidate_labels` the classes are those of the checkpoint. With them the head of the checkpoint must be
    `"text"` (pre-trained, or distilled with `--head text`). A label is looked up among the classes and the baked
    prompts of the model; other words need a text tower. Embeddings of words are cached between calls.

    Args:
        model, processor:
            [`UOVForSemanticSegmentation`] and [`UOVProcessor`]; `pipeline` loads both from a checkpoint.
        device, dtype, batch_size, num_workers:
            See `Pipeline`. A batch is concatenated, never padded.
    """

    model: UOVForSemanticSegmentation
    processor: UOVProcessor
    # The base class declares these as None.
    _load_processor: bool = True  # type: ignore[assignment]
    _load_image_processor: bool = False  # type: ignore[assignment]
    _load_feature_extractor: bool = False  # type: ignore[assignment]
    _load_tokenizer: bool = False  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._embeds_of_words: dict[str, torch.Tensor] = {}

    def __call__(  # type: ignore[override]  # the first argument has its own name, as in all pipelines of transformers
        self, points: Any, candidate_labels: Any = None, **kwargs: Any
    ) -> Any:
        """Label the points of one scan, or of many.

        Args:
            points (path, array of shape `(num_points, 3 or more)`, or a `dict`; or a list or generator of these):
                x, y, z in metres in the lidar frame, then the intensity as in the file, if it has one. A dictionary
                has `points` and optionally its own `candidate_labels`, `candidate_embeds`, `hypothesis_template`,
                `intensity_max` and `num_columns`.
            candidate_labels (`str`, `list[str]` or `list[list[str]]`, *optional*):
                The words to choose from, separated by commas or in a list. A list of scans may have a list for each.
            candidate_embeds (`dict[str, array]`, *optional*):
                Labels given by embeddings in the teacher's space: `(D,)`, or `(num_prompts, D)`, of which the best
                counts. [`~uov_hf.teachers.embed_pictures`] makes them from photos. They are added to the words; under
                the name of a word they are further prompts of it.
            hypothesis_template (`str`, *optional*, defaults to `"a photo of a {}."`):
                The sentence for the text tower. Baked prompts were embedded with the templates of their teacher.
            intensity_max (`float`, *optional*):
                The sensor's full scale; see [`UOVFeatureExtractor`]. If the network needs it, the default is the
                smallest of 1, 255 and 65535 that at most a tenth of the points exceed, with a warning.
            num_columns (`int`, *optional*): Columns of `.bin` files, if they are not to be measured.
            threshold (`float`, *optional*, defaults to 0.0):
                Points whose best label has a lower probability get 255 in `segmentation`.
            top_k (`int`, *optional*):
                Number of best labels to return for each point; all if there are fewer candidates.
            num_views (`int`, *optional*, defaults to 1):
                Test-time augmentation: number of views of the scan, turned and mirrored, whose probabilities are
                averaged for each point.
            refine (`"afi"`, *optional*): Refine the labels by approximate flat interaction.

        Returns:
            [`PointCloudSegmentation`] for one scan, a list of them for a list, a generator for a generator.

        Raises:
            ValueError: There are candidates for a linear head, or a word cannot be embedded.
        """
        if isinstance(points, list) and not points:
            return []
        if _is_list_per_scan(points, candidate_labels):
            points = [
                {**_as_dict(scan), "candidate_labels": own} for scan, own in zip(points, candidate_labels, strict=True)
            ]
            candidate_labels = None
        if candidate_labels is not None:
            kwargs["candidate_labels"] = candidate_labels
        return super().__call__(points, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and its processor as a checkpoint that `pipeline` loads again.

        Args:
            save_directory (`str` or `os.PathLike`): The folder; created if it does not exist.
            kwargs:
                Passed to `save_pretrained` of both, such as `push_to_hub`.
        """
        # The base class saves a tokenizer and a feature extractor, which are parts of the processor here.
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        threshold: float | None = None,
        top_k: int | None = None,
        refine: str | None = None,
        num_views: int | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := sorted(set(options) - {*WORDS, *READING}):
            raise ValueError(f"The pipeline has no parameter {', '.join(unknown)}.")
        for name, count in (("top_k", top_k), ("num_views", num_views)):
            if count is not None and count < 1:
                raise ValueError(f"`{name}` must be at least 1, got {count}.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a probability, from 0 to 1, got {threshold}.")
        read_out = {"threshold": threshold, "top_k": top_k, "refine": refine}
        forward = {} if num_views is None else {"num_views": num_views}
        return options, forward, {name: value for name, value in read_out.items() if value is not None}

    def preprocess(self, input_: Any, **options: Any) -> _Scan:  # type: ignore[override]  # typed: the base has a dict
        options = {**options, **_as_dict(input_)}
        points = as_array(options["points"], options.get("num_columns"))
        return _Scan(
            points=points,
            intensity_max=self.full_scale(points, options.get("intensity_max")),
            candidate_labels=options.get("candidate_labels"),
            candidate_embeds=options.get("candidate_embeds"),
            hypothesis_template=options.get("hypothesis_template"),
        )

    def full_scale(self, points: np.ndarray, given: float | None) -> float | None:
        """Full scale of the intensity of a scan: the given one, the likeliest, or `None` where it is not needed."""
        extractor = self.processor.feature_extractor
        if points.ndim == 2 and points.shape[1] == 3:
            logger.warning_once(
                f"A scan has no intensity: the feature of all its points is {extractor.missing_intensity} "
                "(`missing_intensity`). Results are worse if the network was trained with intensity."
            )
            return None
        if given is not None or extractor.intensity_scaling == "raw" or points.ndim != 2:
            return given
        scale = guess_full_scale(points[:, 3])
        logger.warning_once(
            f"`intensity_max` is not given. Nine tenths of the intensities or more are at most {scale:g}, so this is "
            "taken to be the sensor's full scale. Pass `intensity_max` to be sure (255 for nuScenes, 1 for KITTI)."
        )
        return scale

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, *params: dict[str, Any]
    ) -> Iterator[PointCloudSegmentation]:
        """Iterate over results without padding batches, unlike the base class."""
        preprocess_params, forward_params, postprocess_params = params
        kind = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        if kind is PipelineIterator:
            num_workers = min(num_workers, 1)  # each worker would read the whole iterable
        scans = kind(inputs, self.preprocess, preprocess_params)
        for batch in DataLoader(scans, num_workers=num_workers, batch_size=batch_size, collate_fn=list):
            for outputs in self.forward(batch, **forward_params):
                yield self.postprocess(outputs, **postprocess_params)

    def run_single(self, inputs: Any, *params: dict[str, Any]) -> PointCloudSegmentation:
        return next(self.get_iterator([inputs], 0, 1, *params))

    def _forward(self, scans: list[_Scan], num_views: int = 1) -> list[_VoxelLogits]:  # type: ignore[override]
        # A batch is a list, unlike in the base class.
        return [self._average(scan, num_views) for scan in scans] if num_views > 1 else self._classify_scans(scans)

    def _average(self, scan: _Scan, num_views: int) -> _VoxelLogits:
        """The mean of the views of a scan, one view at a time, so that memory does not grow with their number."""
        points, azimuth_cell = scan["points"], self.processor.feature_extractor.voxel_size[1]
        turned = [_Scan(**{**scan, "points": view}) for view in views(points, num_views, azimuth_cell)]
        found = [self._classify_scans([view])[0] for view in turned]
        logits, rows = average_over_views([(view["logits"], view["point_to_voxel"].to(self.device)) for view in found])
        return {"points": points, "point_to_voxel": rows, "logits": logits, "labels": found[0]["labels"]}

    def _classify_scans(self, scans: list[_Scan]) -> list[_VoxelLogits]:
        scales = [scan["intensity_max"] for scan in scans]
        options: dict[str, Any] = {"return_tensors": "pt"}  # the settings of a tokenizer may have another default
        inputs = self.processor([scan["points"] for scan in scans], intensity_max=scales, **options)
        voxels = inputs["voxel_coords"].to(self.device), inputs["voxel_features"].to(self.device)
        num_voxels = torch.bincount(inputs["voxel_coords"][:, 0], minlength=len(scans))
        starts = num_voxels.cumsum(0) - num_voxels
        classified = self._classify(voxels, num_voxels.tolist(), scans)
        to_voxel = inputs["point_to_voxel"].split(inputs["num_points"].tolist())
        to_voxel = [torch.where(rows < 0, rows, rows - start) for rows, start in zip(to_voxel, starts, strict=True)]
        return [
            {"points": scan["points"], "point_to_voxel": rows, "logits": logits, "labels": labels}
            for scan, rows, (logits, labels) in zip(scans, to_voxel, classified, strict=True)
        ]

    def postprocess(  # type: ignore[override]  # typed: the base has a dict
        self, model_outputs: _VoxelLogits, threshold: float = 0.0, top_k: int | None = None, refine: str | None = None
    ) -> PointCloudSegmentation:
        labels = model_outputs["labels"]
        (found,) = self.processor.post_process_semantic_segmentation(
            model_outputs["logits"],
            model_outputs["point_to_voxel"],
            per_voxel=True,
            refine=refine,
            points=model_outputs["points"],
            label2id={label: row for row, label in enumerate(labels)},
            top_k=top_k,
        )
        segmentation = found["segmentation"].masked_fill(found["scores"] < threshold, IGNORED)
        scores = found["scores"].numpy()
        result: PointCloudSegmentation = {"segmentation": segmentation.numpy(), "scores": scores, "labels": labels}
        if top_k is not None:
            result["top_labels"], result["top_scores"] = found["top_labels"].numpy(), found["top_scores"].numpy()
        return result

    def _classify(
        self, voxels: tuple[torch.Tensor, torch.Tensor], num_voxels: list[int], scans: list[_Scan]
    ) -> list[tuple[torch.Tensor, list[str]]]:
        """For each scan the logits of its voxels, and the names of their columns."""
        classes = self.model.config.classes
        # Before the forward pass, so that an invalid word costs none.
        vocabularies = [self._vocabulary(scan) for scan in scans]
        if not any(vocabularies):
            return [(logits, classes) for logits in self.model.get_voxel_logits(*voxels).split(num_voxels)]
        uov, scale = self.model.uov, self.model.config.logit_scale
        classified = []
        for embeds, words in zip(uov.get_point_features(*voxels).split(num_voxels), vocabularies, strict=True):
            if words is None:
                classified.append((uov.class_scores(embeds), classes))
                continue
            prompts = words.prompt_embeds, words.prompt_to_label
            classified.append((best_of_prompts(embeds, *prompts, scale, len(words.labels)), words.labels))
        return classified

    def _vocabulary(self, scan: _Scan) -> _Vocabulary | None:
        """The candidates of a scan; `None` if it has none, for the classes of the checkpoint."""
        if scan["candidate_labels"] is None and scan["candidate_embeds"] is None:
            return None
        config, template = self.model.config, scan["hypothesis_template"] or DEFAULT_TEMPLATE
        if self.model.classifier is not None:
            raise ValueError(
                '`candidate_labels` require a checkpoint with `head="text"`, but its head is linear, with the classes '
                f"{', '.join(config.classes)}. Call without candidates, or distil with `--head text`."
            )
        if not _has_placeholder(template):
            raise ValueError(f"`hypothesis_template` must have {{}} in place of the word, got {template!r}.")
        embeds = self._embed_labels(_as_labels(scan["candidate_labels"]), template)
        for label, values in (scan["candidate_embeds"] or {}).items():
            own = torch.atleast_2d(torch.as_tensor(values, dtype=torch.float32)).cpu()
            if own.ndim != 2 or not len(own) or own.shape[1] != config.projection_dim or not own.isfinite().all():
                raise ValueError(
                    f"`candidate_embeds` of {label!r} must be finite, of shape ({config.projection_dim},) or "
                    f"(num_prompts, {config.projection_dim}), got shape {tuple(own.shape)}."
                )
            own = F.normalize(own, dim=1)
            embeds[label] = torch.cat([embeds[label], own]) if label in embeds else own
        if not 0 < len(embeds) <= IGNORED:
            raise ValueError(f"There must be from 1 to {IGNORED} candidates, got {len(embeds)}.")
        rows = torch.cat([torch.full((len(own),), row) for row, own in enumerate(embeds.values())])
        return _Vocabulary(list(embeds), torch.cat([*embeds.values()]).to(self.device), rows.to(self.device))

    def _embed_labels(self, labels: list[str], template: str) -> dict[str, torch.Tensor]:
        """`(num_prompts, D)` each, on the CPU: the prompts of a class, a baked prompt, or words by the text tower."""
        uov, config = self.model.uov, self.model.config
        embeds: dict[str, torch.Tensor] = {}
        baked, sentences = [], {}
        ids = {_plain(name): index for index, name in enumerate(config.class_names)}
        prompt_embeds, prompt_to_class = uov.prompt_embeds.cpu(), uov.prompt_to_class.cpu()
        for label in labels:
            if _plain(label) in ids and len(prompt_embeds):
                embeds[label] = prompt_embeds[prompt_to_class == ids[_plain(label)]]
            elif label in config.prompts or not config.has_teachers_text_tower:
                baked.append(label)
            else:
                sentences[label] = template.format(label)
        if baked:  # raises for words that are not baked
            embeds |= zip(baked, uov.get_prompt_features(baked).cpu().split(1), strict=True)
        new = [text for text in sentences.values() if text not in self._embeds_of_words]
        if new:
            tokens = self.processor(text=new).to(self.device)
            self._embeds_of_words |= zip(
                new, uov.get_text_features(**tokens).pooler_output.cpu().split(1), strict=True
            )
        embeds |= {label: self._embeds_of_words[sentence] for label, sentence in sentences.items()}
        return {label: embeds[label] for label in labels}


def _as_dict(scan: Any) -> dict[str, Any]:
    if not isinstance(scan, Mapping):
        return {"points": scan}
    unknown = set(scan) - {"points", *READING, *WORDS}
    if unknown or "points" not in scan:
        raise ValueError(
            f"The dictionary of a scan must have `points`, and may have {', '.join((*WORDS, *READING))}, got "
            f"{', '.join(map(str, scan)) or 'an empty one'}."
        )
    return dict(scan)


def _has_placeholder(template: str) -> bool:
    """Whether a template can be filled with a word and nothing else."""
    try:
        return template.format("a") != template.format("b")
    except (KeyError, IndexError, ValueError, AttributeError):
        return False


def _as_labels(candidate_labels: str | list[str] | None) -> list[str]:
    if candidate_labels is None:
        return []
    words = candidate_labels.split(",") if isinstance(candidate_labels, str) else list(candidate_labels)
    words = [word.strip() for word in words]
    if not words or not all(words) or len(set(words)) < len(words):
        raise ValueError(f"`candidate_labels` must be words, each once, got {candidate_labels!r}.")
    return words


def _is_list_per_scan(points: Any, candidate_labels: Any) -> bool:
    if not isinstance(candidate_labels, (list, tuple)) or all(isinstance(label, str) for label in candidate_labels):
        return False
    if not isinstance(points, list) or len(points) != len(candidate_labels):
        raise ValueError(
            f"`candidate_labels` has {len(candidate_labels)} lists. Pass a list of as many scans, one list for each."
        )
    return True


def _plain(word: str) -> str:
    return word.replace("_", " ").lower()
