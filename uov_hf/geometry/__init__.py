"""Cameras, projection of points into images, and what hides what."""

from uov_hf.geometry.projection import Camera, project_points


__all__ = ["Camera", "project_points"]
