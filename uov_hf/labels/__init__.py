"""What teachers said: label sets per image, point labels per scan."""

from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.point_labels import PRESETS, PointLabels, label_points


__all__ = ["PRESETS", "LabelSet", "PointLabels", "label_points"]
