"""The classes of this package under the test mixins of transformers; run by `run_transformers_mixins.py`."""

import unittest

import torch
from inapplicable_tests import INAPPLICABLE
from tests.test_configuration_common import ConfigTester
from tests.test_feature_extraction_common import FeatureExtractionSavingTestMixin
from tests.test_modeling_common import ModelTesterMixin
from tests.test_processing_common import ProcessorTesterMixin
from transformers import CLIPImageProcessorPil, CLIPTextConfig

from uov_hf import (
    UOVConfig,
    UOVFeatureExtractor,
    UOVForPreTraining,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
)
from uov_hf.processing_uov import _letter_tokenizer


NUM_VOXELS, NUM_POINTS, NUM_PAIRS, NUM_SUPERPOINTS, NUM_PROMPTS, DIM = 90, 70, 40, 6, 4, 12


def without_inapplicable(case: type) -> type:
    """Remove the tests of the table that the class or one of its bases is named in."""
    names = {base.__name__ for base in case.__mro__}
    for test in [test for group in INAPPLICABLE if names & set(group.cases) for test in group.tests]:
        if not hasattr(case, test):
            raise ValueError(f"{case.__name__} has no {test}: delete it from `inapplicable_tests.py`.")
        setattr(case, test, None)
    return case


class TextModelTester:
    """Words for the text tower."""

    num_hidden_layers = 2

    def prepare_config_and_inputs_for_common(self) -> tuple[None, dict[str, torch.Tensor]]:
        return None, {"input_ids": torch.randint(3, 60, (3, 5)), "attention_mask": torch.ones(3, 5, dtype=torch.long)}


class ModelTester:
    """A tiny network and its inputs, with the attributes that `ModelTesterMixin` reads."""

    seq_length, hidden_size = NUM_VOXELS, 8  # rows and channels of the first hidden state
    expected_num_hidden_layers = num_hidden_layers = 9  # the stem and eight stages
    text_model_tester = TextModelTester()

    def __init__(self, is_training: bool, text_config: CLIPTextConfig | None):
        self.is_training, self.text_config = is_training, text_config

    def get_config(self) -> UOVConfig:
        return UOVConfig.from_preset(
            "tiny",
            stem_channels=8,
            hidden_sizes=[8] * 8,
            projection_dim=DIM,
            text_config=self.text_config,
            text_tower_source="clip",
            teacher="clip",
            prompts=["car", "road"],
            head="linear",
            id2label={0: "car", 1: "road"},
            sparse_backend="torch",
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[UOVConfig, dict[str, torch.Tensor]]:
        cells = torch.cat([torch.randint(2, (150, 1)), torch.randint(-4, 4, (150, 3))], dim=1).unique(dim=0).int()
        inputs = {
            "voxel_coords": cells[:NUM_VOXELS],
            "voxel_features": torch.rand(NUM_VOXELS, 1),
            "point_to_voxel": torch.randint(NUM_VOXELS, (NUM_POINTS,)),
        }
        return self.get_config(), inputs


def unit(num_rows: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(num_rows, DIM), dim=1)


class ModelCase(ModelTesterMixin):
    """What the three models have in common."""

    has_attentions = False
    test_resize_embeddings = False
    is_training, text_config = True, None

    def setUp(self) -> None:
        torch.manual_seed(0)
        self.model_tester = ModelTester(self.is_training, self.text_config)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            if model_class is UOVForSemanticSegmentation and return_labels:
                inputs["labels"] = torch.randint(2, (NUM_POINTS,))
            if model_class is UOVForPreTraining:
                inputs |= self._pairs()
        return inputs

    def _pairs(self) -> dict[str, torch.Tensor]:
        return {
            "pair_to_point": torch.randint(NUM_POINTS, (NUM_PAIRS,)),
            "superpoint_ids": torch.randint(NUM_SUPERPOINTS, (NUM_PAIRS,)),
            "segment_embeds": unit(NUM_SUPERPOINTS),
            "segment_labels": torch.randint(NUM_PROMPTS, (NUM_SUPERPOINTS,)),
            "prompt_embeds": unit(NUM_PROMPTS),
            "prompt_groups": torch.arange(NUM_PROMPTS),
            "scene_ids": torch.zeros(NUM_SUPERPOINTS, dtype=torch.long),
        }


@without_inapplicable
class UOVModelCase(ModelCase, unittest.TestCase):
    all_model_classes = (UOVModel,)
    is_training = False  # it has no loss
    text_config = CLIPTextConfig(
        vocab_size=60,
        projection_dim=DIM,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=16,
    )


@without_inapplicable
class UOVForPreTrainingCase(ModelCase, unittest.TestCase):
    all_model_classes = (UOVForPreTraining,)


@without_inapplicable
class UOVForSemanticSegmentationCase(ModelCase, unittest.TestCase):
    all_model_classes = (UOVForSemanticSegmentation,)


@without_inapplicable
class UOVProcessorCase(ProcessorTesterMixin, unittest.TestCase):
    processor_class = UOVProcessor

    @classmethod
    def _setup_feature_extractor(cls) -> UOVFeatureExtractor:
        return UOVFeatureExtractor()

    @classmethod
    def _setup_image_processor(cls) -> CLIPImageProcessorPil:
        return CLIPImageProcessorPil()

    @classmethod
    def _setup_tokenizer(cls):
        return _letter_tokenizer()

    @staticmethod
    def prepare_processor_dict() -> dict[str, bool]:
        return {"has_text_tower": True}


@without_inapplicable
class UOVFeatureExtractorCase(FeatureExtractionSavingTestMixin, unittest.TestCase):
    feature_extraction_class = UOVFeatureExtractor

    def setUp(self) -> None:
        self.feat_extract_dict = {"voxel_size": [0.2] * 3, "coordinate_system": "cartesian"}
        self.feat_extract_tester = self

    def prepare_feat_extract_dict(self) -> dict:
        return self.feat_extract_dict


class UOVConfigCase(unittest.TestCase):
    def test_config(self) -> None:
        ConfigTester(self, config_class=UOVConfig, has_text_modality=False, projection_dim=DIM).run_common_tests()
