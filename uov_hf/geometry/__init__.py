"""Cameras, projection of points into images, occlusion, rotations and rigid motions."""

from uov_hf.geometry.projection import Camera, project_points


__all__ = ["Camera", "project_points"]
