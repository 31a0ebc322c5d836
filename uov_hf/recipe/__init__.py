"""All stages from images to an evaluated segmenter as one run: a recipe file, its plan, and its resumption."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)
