"""Evaluation: metrics, reports, predictions for benchmarks, and the label card."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
