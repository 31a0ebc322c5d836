"""Training: samples, augmentation, the loop, checkpoints and typed arguments."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
