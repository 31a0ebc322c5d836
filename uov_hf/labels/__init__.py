"""Label sets (the segments of a teacher per image) and the point labels made from them."""

from uov_hf.extras import require_train_extra


require_train_extra(__name__)

from uov_hf.data.write_report import WriteReport
from uov_hf.labels.consolidation import PRESETS, Consolidation
from uov_hf.labels.identity import identify_dataset
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.point_labels import PointLabels, label_points
from uov_hf.labels.publishing import push_label_set
from uov_hf.labels.segments import decode_segmentation


__all__ = [
    "PRESETS",
    "Consolidation",
    "LabelSet",
    "PointLabels",
    "WriteReport",
    "decode_segmentation",
    "identify_dataset",
    "label_points",
    "push_label_set",
]
