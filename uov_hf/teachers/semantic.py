"""A closed-set segmenter as a teacher: SegFormer, UperNet, Mask2Former, EoMT and others, with their own labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uov_hf.teachers.checkpoints import Checkpoint, dtype_name
from uov_hf.teachers.clip_space import ClipSpace
from uov_hf.teachers.config import share
from uov_hf.teachers.images import ScaledImage
from uov_hf.teachers.label_space import LabelSpace
from uov_hf.teachers.pooling import means_of_segments, pool_segments, segments_of_labels
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images
from uov_hf.teachers.second_space import SecondSpaceConfig, load_clip_space
from uov_hf.teachers.segmenter import Segmenter, labels_of
from uov_hf.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class SemanticConfig(SecondSpaceConfig):
    """Settings of `SemanticTeacher`; see `SecondSpaceConfig` for the others, which need `embed_model_name_or_path`.

    Args:
        min_score (`float`, *optional*, defaults to 0.0):
            Pixels whose best label has a lower score have no segment. At 0 every pixel has a segment.
    """

    min_score: float = share(0.0)


class SemanticTeacher(Teacher):
    """Any semantic segmenter of `transformers`, with the labels that it was trained on.

    Its prompts are the labels in its `id2label`; the vocabulary's `model_labels` has the class of each. The model's
    image processor gives each pixel a label, and the pixels of a label form one segment.

    The score of a pixel is the softmax probability of its label. For models with queries it is the sum, over the
    queries, of the label's probability times the mask's, at most 1. A segment has the mean of its pixels.

    Embeddings are the features that the model's last layer reads (see `LabelSpace`), or those of a second model, a
    CLIP or a TIPSv2. Without a second model only the labels have embeddings. `SemanticConfig` has the settings.

    Raises:
        ValueError: the model is of another kind, or `prompts` do not begin with its labels.
    """

    name = "semantic"
    example = "nvidia/segformer-b5-finetuned-cityscapes-1024-1024"
    config_class = SemanticConfig
    config: SemanticConfig

    @classmethod
    def fit_vocabulary(
        cls,
        vocabulary: Vocabulary,
        model_name_or_path: str | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> Vocabulary:
        """The vocabulary with the model's labels as prompts.

        Raises:
            ValueError: the vocabulary has no class for a label.
        """
        if model_name_or_path is None:
            return vocabulary  # loading the teacher raises
        config = Checkpoint(model_name_or_path, revision).load_config()
        return vocabulary.with_model_labels(labels_of(config), model_name_or_path)

    def load(self) -> None:
        super().load()
        self.segmenter = Segmenter(self.checkpoint())
        self.model = self.segmenter.model
        labels = self.segmenter.labels
        if self.prompts[: len(labels)] != labels:
            raise ValueError(
                f"The teacher `{self.name}` predicts the {len(labels)} labels of {self.model_name_or_path} "
                f"({', '.join(labels[:3])}, …), not other words. Give a vocabulary instead of words; in Python, pass "
                "the prompts of `SemanticTeacher.fit_vocabulary`."
            )
        self.space = self._load_space()

    def _load_space(self) -> ClipSpace | LabelSpace:
        source = self.config.embed_model_name_or_path
        if source is None:
            return self.segmenter.label_space()
        checkpoint = Checkpoint(source, self.config.embed_revision, self.device, self.dtype)
        return load_clip_space(checkpoint, self.config.space_config)

    @property
    def embed_dim(self) -> int:
        return self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        own = super().settings | {"dtype": dtype_name(self.dtype)}
        return own if isinstance(self.space, LabelSpace) else own | self.config.record_space(self.space)

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, embed_dim)`.

        Raises:
            ValueError: a phrase is not among the teacher's prompts, and there is no second model to embed it.
        """
        if isinstance(self.space, ClipSpace):
            return self.space.encode_prompts(prompts).cpu().numpy()
        if unknown := sorted(set(prompts) - set(self.prompts)):
            raise ValueError(
                f"The teacher `{self.name}` has no text tower: it embeds the {len(self.segmenter.labels)} labels of "
                f"{self.model_name_or_path} only, not {', '.join(map(repr, unknown[:5]))}. For other words, make the "
                "label set with a second model, a CLIP, as `embed_model_name_or_path`."
            )
        embeds = self.space.embed_prompts(len(self.prompts)).cpu().numpy()
        if prompts == self.prompts:
            return embeds  # by place: the first prompt of a class without a label may be a label of no class, too
        return embeds[[self.prompts.index(prompt) for prompt in prompts]]

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        # One image at a time: a map of the image's size for each label fills hundreds of megabytes.
        return [self._segment(image) for image in open_images(frame)]

    def _segment(self, image: ScaledImage) -> ImageSegments:
        label_space = self.space if isinstance(self.space, LabelSpace) else None
        found = self.segmenter.predict(image, label_space)
        segmentation, labels = segments_of_labels(found.labels, keep=found.scores >= self.config.min_score)
        scores = means_of_segments(found.scores, segmentation, len(labels))
        if isinstance(self.space, LabelSpace):
            embeds = self.space.embed_segments(found.pieces, segmentation, len(labels))
        else:
            [features] = self.space.dense_features([image])
            embeds = pool_segments(features, segmentation, len(labels))
        return ImageSegments.from_tensors(segmentation, labels, scores, embeds)
