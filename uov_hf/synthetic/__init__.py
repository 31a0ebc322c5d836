"""A street that renders to a genuine nuScenes root: everything runs on it where there is no data set at hand."""

from uov_hf.synthetic.street import generate_street


__all__ = ["generate_street"]
