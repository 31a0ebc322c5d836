"""LiDAR segmentation without 3D labels: UOV for the Hugging Face ecosystem."""
