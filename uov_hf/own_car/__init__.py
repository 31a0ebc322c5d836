"""Recordings of one's own car: calibration, lenses, files of poses and times, and the calibration check."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
