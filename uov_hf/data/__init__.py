"""Frames from raw folders, Parquet or the Hub."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)

from uov_hf.data.frames import FRAME_FEATURES, Frame, FrameBuilder, Frames, FrameSource
from uov_hf.data.loading import load_frames
from uov_hf.image_files import EncodedImage, decode_image


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
