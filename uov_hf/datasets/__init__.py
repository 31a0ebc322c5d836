"""Readers of public datasets; each module has one `FrameBuilder`, found by its name in `load_frames`."""
