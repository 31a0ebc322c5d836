"""A street that renders to a genuine nuScenes or SemanticKITTI root, for tests and examples without a dataset."""

from uov_hf.synthetic.semantic_kitti import generate_semantic_kitti
from uov_hf.synthetic.street import generate_street, generate_street_once


__all__ = ["generate_semantic_kitti", "generate_street", "generate_street_once"]
