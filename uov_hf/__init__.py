"""LiDAR segmentation without 3D labels. Importing the package registers its classes and pipeline with transformers."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_uov import UOVConfig
from .feature_extraction_uov import UOVFeatureExtractor
from .hub.checkpoint import push_checkpoint, save_checkpoint
from .modeling_uov import UOVModel
from .modeling_uov_pretraining import UOVForPreTraining
from .modeling_uov_segmentation import UOVForSemanticSegmentation
from .pipeline_uov import PointCloudSegmentationPipeline
from .processing_uov import UOVProcessor


AutoConfig.register("uov", UOVConfig, exist_ok=True)
AutoFeatureExtractor.register(UOVConfig, UOVFeatureExtractor, exist_ok=True)
AutoModel.register(UOVConfig, UOVModel, exist_ok=True)
AutoModelForPreTraining.register(UOVConfig, UOVForPreTraining, exist_ok=True)
AutoModelForSemanticSegmentation.register(UOVConfig, UOVForSemanticSegmentation, exist_ok=True)
AutoProcessor.register(UOVConfig, UOVProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "point-cloud-segmentation", PointCloudSegmentationPipeline, pt_model=UOVForSemanticSegmentation, type="multimodal"
)

__all__ = [
    "PointCloudSegmentationPipeline",
    "UOVConfig",
    "UOVFeatureExtractor",
    "UOVForPreTraining",
    "UOVForSemanticSegmentation",
    "UOVModel",
    "UOVProcessor",
    "push_checkpoint",
    "save_checkpoint",
]
