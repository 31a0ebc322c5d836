"""A street that renders to a genuine nuScenes or SemanticKITTI root: all runs on it where no data set is at hand."""

from uov_hf.synthetic.semantic_kitti import generate_semantic_kitti
from uov_hf.synthetic.street import generate_street


__all__ = ["generate_semantic_kitti", "generate_street"]
