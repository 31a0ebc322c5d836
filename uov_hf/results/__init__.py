"""Point files with a class and a score for every point, and labels read from such files."""

from uov_hf.results.classes import find_label_ids, to_asprs
from uov_hf.results.label_files import FileLabels, read_labels
from uov_hf.results.segmented_scan import SegmentedScan
from uov_hf.results.writers import FORMATS, check_is_not_the_scan, check_libraries, write_result


__all__ = [
    "FORMATS",
    "FileLabels",
    "SegmentedScan",
    "check_is_not_the_scan",
    "check_libraries",
    "find_label_ids",
    "read_labels",
    "to_asprs",
    "write_result",
]
