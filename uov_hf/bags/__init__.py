"""Recordings of ROS: bags as they are recorded, their content, and bags with labelled points."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
