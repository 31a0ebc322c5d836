"""`pipeline("point-cloud-segmentation")`: scans in, a label for each of their points out, in words of one's own."""

import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .configuration_uov import IGNORED
from .feature_extraction_uov import as_array
from .modeling_uov import UOVModel, best_of_prompts


logger = logging.get_logger(__name__)

FULL_SCALES = (1, 255, 65535)  # of the intensity, in the files of most sensors
DEFAULT_TEMPLATE = "a photo of a {}."
WORDS = ("candidate_labels", "candidate_embeds", "hypothesis_template")


class PointCloudSegmentationPipeline(Pipeline):
    """Names every point of lidar scans.

    ```python
    from transformers import pipeline
    import uov_hf

    segmenter = pipeline("point-cloud-segmentation", model="out/uov")
    result = segmenter("scan.bin", candidate_labels=["car", "road", "tree"])
    result["labels"][result["segmentation"][0]]  # what the first point is
    ```

    Without `candidate_labels` it answers in the classes of the checkpoint. With them it needs a checkpoint whose head
    is `"text"` (a pre-trained one, or one distilled with `--head text`): a label is looked up among the classes and
    the prompts that are baked into the model, and goes to the text tower where there is one. Embeddings of words are
    kept from call to call.

    Args:
        model, processor:
            [`UOVForSemanticSegmentation`] and [`UOVProcessor`]; `pipeline` loads both from a checkpoint.
        device, dtype, batch_size, num_workers:
            As for every pipeline. A batch is concatenated, never padded.
    """

    _load_processor = True
    _load_image_processor = _load_feature_extractor = _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._embeds_of_words: dict[str, torch.Tensor] = {}

    def __call__(self, points: Any, candidate_labels: Any = None, **kwargs) -> Any:
        """Label the points of one scan, or of many.

        Args:
            points (path, array of shape `(num_points, 3 or more)`, or a `dict`; or a list or generator of these):
                x, y, z in metres in the lidar frame, then the intensity as in the file, if there is one. A dictionary
                has `points` and may have `candidate_labels`, `candidate_embeds` and `intensity_max` of its own.
            candidate_labels (`str`, `list[str]` or `list[list[str]]`, *optional*):
                The words to choose from: with commas between them, or in a list; for a list of scans perhaps one list
                for each.
            candidate_embeds (`dict[str, array]`, *optional*):
                Labels by embeddings of the teacher's space: `(D,)`, or `(num_prompts, D)`, whose best counts.
                [`~uov_hf.teachers.embed_pictures`] makes them of photos. They stand beside the words; those of a word
                add to it.
            hypothesis_template (`str`, *optional*, defaults to `"a photo of a {}."`):
                The sentence that the text tower reads. Baked words were embedded in the templates of their teacher.
            intensity_max (`float`, *optional*):
                The sensor's full scale, as [`UOVFeatureExtractor`] takes it. Where the network needs it, it is by
                default the least of 1, 255 and 65535 that no point of the scan exceeds, and a warning says so.
            threshold (`float`, *optional*, defaults to 0.0):
                Points whose best label has less probability than this get 255 in `segmentation`.
            top_k (`int`, *optional*):
                How many labels to give for each point, best first; all where there are fewer candidates.
            refine (`"afi"`, *optional*):
                Clean the answer by approximate flat interaction.

        Returns:
            For each scan a dictionary: `segmentation` `(num_points,)` int64, rows of `labels`, 255 for a point that is
            in no voxel or below the threshold; `scores` `(num_points,)` float32, the probability among the candidates;
            `labels`, a list of words. With `top_k` also `top_labels` `(num_points, top_k)` int64 and `top_scores`
            `(num_points, top_k)` float32, whatever the threshold is.

        Raises:
            ValueError: if the head is linear and there are candidates, or a word cannot be embedded.
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
            save_directory (`str` or `os.PathLike`):
                The folder; created if it does not exist.
            kwargs:
                Passed to `save_pretrained` of both, such as `push_to_hub`.
        """
        # The base class saves a tokenizer and a feature extractor, which are parts of the processor here.
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, threshold=None, top_k=None, refine=None, **asked):
        unknown = sorted(set(asked) - {*WORDS, "intensity_max"})
        if unknown:
            raise ValueError(f"The pipeline has no parameter {', '.join(unknown)}.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a probability, from 0 to 1, got {threshold}.")
        read_out = {"threshold": threshold, "top_k": top_k, "refine": refine}
        return asked, {}, {name: value for name, value in read_out.items() if value is not None}

    def preprocess(self, scan: Any, **asked) -> dict[str, Any]:
        asked = {**asked, **_as_dict(scan)}
        points = as_array(asked["points"])
        words = {name: asked.get(name) for name in WORDS}
        return {**words, "points": points, "intensity_max": self._full_scale(points, asked.get("intensity_max"))}

    def _full_scale(self, points: np.ndarray, given: float | None) -> float:
        """Of the intensity of a scan: as given, or the likeliest; 1 where it does not matter."""
        extractor = self.processor.feature_extractor
        if points.ndim == 2 and points.shape[1] == 3:
            logger.warning_once(
                f"A scan has no intensity: the network reads {extractor.missing_intensity} (`missing_intensity`) for "
                "each of its points, and may never have seen such scans."
            )
            return 1.0
        if given is not None or extractor.intensity_scaling == "raw" or points.ndim != 2:
            return 1.0 if given is None else given
        largest = np.max(points[:, 3], initial=0, where=np.isfinite(points[:, 3]))
        for scale in FULL_SCALES:
            if largest <= scale:
                logger.warning_once(
                    f"`intensity_max` is not given: intensities up to {scale} look as if the sensor's full scale were "
                    f"{scale}. Give it to be sure (255 for nuScenes, 1 for KITTI)."
                )
                return float(scale)
        raise ValueError(f"`intensity_max`, the sensor's full scale, must be given: intensities go up to {largest}.")

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict[str, Any]]:
        """As the library's, but for the batches, which it would pad."""
        kind = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        if kind is PipelineIterator:
            num_workers = min(num_workers, 1)  # each worker would read all of it
        scans = kind(inputs, self.preprocess, preprocess_params)
        for batch in DataLoader(scans, num_workers=num_workers, batch_size=batch_size, collate_fn=list):
            for answer in self.forward(batch, **forward_params):
                yield self.postprocess(answer, **postprocess_params)

    def run_single(self, inputs, *params) -> dict[str, Any]:
        return next(self.get_iterator([inputs], 0, 1, *params))

    def _forward(self, scans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each scan its points, their voxels, the logits of these, and what the logits are of."""
        scales = [scan["intensity_max"] for scan in scans]
        inputs = self.processor([scan["points"] for scan in scans], intensity_max=scales)
        voxels = inputs["voxel_coords"].to(self.device), inputs["voxel_features"].to(self.device)
        num_voxels = torch.bincount(inputs["voxel_coords"][:, 0], minlength=len(scans))
        starts = num_voxels.cumsum(0) - num_voxels
        named = self._name(voxels, num_voxels.tolist(), [{name: scan[name] for name in WORDS} for scan in scans])
        to_voxel = inputs["point_to_voxel"].split(inputs["num_points"].tolist())
        return [
            {
                "points": scan["points"],
                "point_to_voxel": torch.where(rows < 0, rows, rows - start),
                "logits": logits,
                "labels": labels,
            }
            for scan, rows, start, (logits, labels) in zip(scans, to_voxel, starts, named, strict=True)
        ]

    def postprocess(
        self, answer: dict[str, Any], threshold: float = 0.0, top_k: int | None = None, refine: str | None = None
    ) -> dict[str, Any]:
        (found,) = self.processor.post_process_semantic_segmentation(
            answer["logits"],
            answer["point_to_voxel"],
            per_voxel=True,
            refine=refine,
            points=answer["points"],
            label2id={label: row for row, label in enumerate(answer["labels"])},
            top_k=top_k,
        )
        found["segmentation"] = found["segmentation"].masked_fill(found["scores"] < threshold, IGNORED)
        return {name: values.numpy() for name, values in found.items()} | {"labels": answer["labels"]}

    def _name(
        self, voxels: tuple[torch.Tensor, torch.Tensor], num_voxels: list[int], words: list[dict[str, Any]]
    ) -> list[tuple[torch.Tensor, list[str]]]:
        """For each scan of the batch the logits of its voxels, and what their columns are called."""
        asked = [own["candidate_labels"] is not None or own["candidate_embeds"] is not None for own in words]
        classes = list(self.model.config.id2label.values())
        if not any(asked):
            return [(logits, classes) for logits in self.model.get_voxel_logits(*voxels).split(num_voxels)]
        uov = self._with_words()
        # A word that is refused costs no forward pass.
        vocabularies = [self._vocabulary(uov, **own) if mine else None for own, mine in zip(words, asked, strict=True)]
        embeds = uov.get_point_features(*voxels).split(num_voxels)
        return [
            (uov.class_scores(own), classes)
            if vocabulary is None
            else (best_of_prompts(own, *vocabulary[1:], uov.config.logit_scale, len(vocabulary[0])), vocabulary[0])
            for own, vocabulary in zip(embeds, vocabularies, strict=True)
        ]

    def _with_words(self) -> UOVModel:
        if self.model.classifier is not None:
            raise ValueError(
                "`candidate_labels` need a network that answers by words, and the head of this checkpoint is linear: "
                f"its classes are {', '.join(self.model.config.id2label.values())}. Ask without candidates, or "
                "distil with `--head text`."
            )
        return self.model.uov

    def _vocabulary(
        self, uov: UOVModel, candidate_labels, candidate_embeds, hypothesis_template
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """The candidates, the embeddings `(P, D)` of their prompts, and the candidate of each `(P,)`."""
        template = hypothesis_template or DEFAULT_TEMPLATE
        if not _has_a_place(template):
            raise ValueError(f"`hypothesis_template` must have {{}} where the word goes, got {template!r}.")
        embeds = self._embeds_of(uov, _as_labels(candidate_labels), template)
        for label, given in dict(candidate_embeds or {}).items():
            given = torch.atleast_2d(torch.as_tensor(given, dtype=torch.float32)).cpu()
            fits = given.ndim == 2 and len(given) and given.shape[1] == uov.config.projection_dim
            if not fits or not given.isfinite().all():
                raise ValueError(
                    f"`candidate_embeds` of {label!r} must be finite, of shape ({uov.config.projection_dim},) or "
                    f"(num_prompts, {uov.config.projection_dim}), got shape {tuple(given.shape)}."
                )
            given = F.normalize(given, dim=1)
            embeds[label] = torch.cat([embeds[label], given]) if label in embeds else given
        if not 0 < len(embeds) <= IGNORED:
            raise ValueError(f"There must be a candidate, and may be at most {IGNORED} candidates, got {len(embeds)}.")
        rows = [torch.full((len(own),), row) for row, own in enumerate(embeds.values())]
        return list(embeds), torch.cat(list(embeds.values())).to(self.device), torch.cat(rows).to(self.device)

    def _embeds_of(self, uov: UOVModel, labels: list[str], template: str) -> dict[str, torch.Tensor]:
        """`(num_prompts, D)` each, on the CPU: the prompts of a class, a baked prompt, or those of the text tower."""
        config, embeds, baked, sentences = uov.config, {}, [], {}
        names = {_plain(name): index for name, index in config.label2id.items()}
        prompt_embeds, prompt_to_class = uov.prompt_embeds.cpu(), uov.prompt_to_class.cpu()
        for label in labels:
            if _plain(label) in names and len(prompt_embeds):
                embeds[label] = prompt_embeds[prompt_to_class == names[_plain(label)]]
            elif label in config.prompts or not config.has_teachers_text_tower:
                baked.append(label)
            else:
                sentences[label] = template.format(label)
        if baked:  # a word that is not is refused here
            embeds |= zip(baked, uov.get_prompt_features(baked).cpu().split(1), strict=True)
        self._read(uov, [sentence for sentence in sentences.values() if sentence not in self._embeds_of_words])
        embeds |= {label: self._embeds_of_words[sentence] for label, sentence in sentences.items()}
        return {label: embeds[label] for label in labels}

    def _read(self, uov: UOVModel, sentences: list[str]) -> None:
        """Let the text tower read sentences that it has not read before."""
        if sentences:
            tokens = self.processor(text=sentences).to(self.device)
            self._embeds_of_words |= zip(
                sentences, uov.get_text_features(**tokens).pooler_output.cpu().split(1), strict=True
            )


def _as_dict(scan: Any) -> dict[str, Any]:
    if not isinstance(scan, Mapping):
        return {"points": scan}
    unknown = set(scan) - {"points", "intensity_max", *WORDS}
    if unknown or "points" not in scan:
        raise ValueError(
            f"A scan's dictionary has `points`, and may have {', '.join(WORDS)} and intensity_max: got "
            f"{', '.join(map(str, scan)) or 'an empty one'}."
        )
    return dict(scan)


def _has_a_place(template: str) -> bool:
    """Whether the word, and nothing else, is asked for by a template."""
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
            f"`candidate_labels` has {len(candidate_labels)} lists: give a list of as many scans, one list for each."
        )
    return True


def _plain(word: str) -> str:
    return word.replace("_", " ").lower()
