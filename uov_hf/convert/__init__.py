"""Official UOV/AFOV and SLidR checkpoints as checkpoints of this package."""

from uov_hf.convert.checkpoint import Conversion, convert_checkpoint


__all__ = ["Conversion", "convert_checkpoint"]
