"""LiDAR segmentation without 3D labels: UOV for the Hugging Face ecosystem.

Importing the package makes its classes known to the Auto classes of transformers.
"""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .configuration_uov import UOVConfig
from .modeling_uov import UOVForPreTraining, UOVModel


AutoConfig.register("uov", UOVConfig, exist_ok=True)
AutoModel.register(UOVConfig, UOVModel, exist_ok=True)
AutoModelForPreTraining.register(UOVConfig, UOVForPreTraining, exist_ok=True)

__all__ = ["UOVConfig", "UOVForPreTraining", "UOVModel"]
