"""Frames from raw folders, Parquet or the Hub."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)

from uov_hf.data.frames import FRAME_FEATURES, EncodedImage, Frame, FrameBuilder, Frames, FrameSource, decode_image
from uov_hf.data.loading import load_frames


__all__ = [
    "FRAME_FEATURES",
    "EncodedImage",
    "Frame",
    "FrameBuilder",
    "FrameSource",
    "Frames",
    "decode_image",
    "load_frames",
]
