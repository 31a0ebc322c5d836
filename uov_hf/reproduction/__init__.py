"""The record of a run, `run.json`, and the same run once more, compared with it."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
