"""What teachers said: label sets per image, point labels per scan."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)

from uov_hf.labels.consolidation import PRESETS, Consolidation
from uov_hf.labels.label_set import LabelSet, decode_segmentation
from uov_hf.labels.point_labels import PointLabels, label_points
from uov_hf.labels.shards import WriteReport


__all__ = ["PRESETS", "Consolidation", "LabelSet", "PointLabels", "WriteReport", "decode_segmentation", "label_points"]
