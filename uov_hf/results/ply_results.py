"""Write a result as PLY."""

from pathlib import Path

import numpy as np

from uov_hf.ply_files import read_ply_elements
from uov_hf.point_fields import load_library
from uov_hf.results.segmented_scan import SegmentedScan, name_new_fields


def write_ply(path: Path, result: SegmentedScan, file: Path) -> None:
    """Write the elements of a PLY file, or the points of another scan; see [`write_result`]."""
    plyfile = load_library(path, "plyfile", "plyfile")
    if result.scan.suffix.lower() == ".ply":
        content = read_ply_elements(result.scan)
    else:
        content = plyfile.PlyData([plyfile.PlyElement.describe(result.to_fields(), "vertex")])
    vertex = content["vertex"]
    label_field, score_field = name_new_fields([own.name for own in vertex.properties])
    before = vertex.data
    data = np.empty(len(before), [*before.dtype.descr, (label_field, "u1"), (score_field, "f4")])
    for name in before.dtype.names:
        data[name] = before[name]
    data[label_field], data[score_field] = result.labels, result.scores
    vertex.data = data
    new = [plyfile.PlyProperty(label_field, "uchar"), plyfile.PlyProperty(score_field, "float")]
    vertex.properties = (*vertex.properties, *new)
    has_lists = any(isinstance(own, plyfile.PlyListProperty) for element in content for own in element.properties)
    if has_lists and not content.text:
        # In elements with lists, plyfile 1.1 writes numbers in the order of the machine, whatever the header has.
        content.byte_order = "="
    content.write(file)
