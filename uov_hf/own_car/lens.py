"""Images without lens distortion, by OpenCV's lens models."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


# Coefficients of a lens model, as OpenCV orders them: k1, k2, p1, p2[, k3[, k4, k5, k6[, s1…s4[, τx, τy]]]] and k1…k4.
NUM_COEFFICIENTS = {"opencv": (4, 5, 8, 12, 14), "opencv_fisheye": (4,)}
LEAST_ZOOM, MOST_ZOOM = 0.25, 4.0
GRID = 65  # places along each side of the image where the lens is evaluated


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens with distortion, and the pinhole camera of its straightened images.

    The pinhole camera has the same image size and principal point. Its focal length is the shortest for which every
    pixel of the straightened image lies inside the original.

    Args:
        model (`str`): `"opencv"` or `"opencv_fisheye"`.
        coefficients (`np.ndarray`): In OpenCV's order.
        intrinsics (`np.ndarray` of shape `(3, 3)`): Of the original.
        image_size (`tuple[int, int]`): Height and width.

    Raises:
        ValueError: The coefficients are impossible for this model.
        ImportError: OpenCV is not installed.
    """

    model: str
    coefficients: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]

    def __post_init__(self):
        _opencv()  # both raise now, not in the middle of a training
        self.pinhole_intrinsics  # noqa: B018

    def __reduce__(self) -> tuple[type["Lens"], tuple[object, ...]]:
        # The maps are not pickled: a worker process computes its own.
        return type(self), (self.model, self.coefficients, self.intrinsics, self.image_size)

    @cached_property
    def pinhole_intrinsics(self) -> NDArray[np.float64]:
        """Of the straightened image, (3, 3)."""
        low, high = LEAST_ZOOM, MOST_ZOOM
        if not self._covers(high):
            raise ValueError(
                f"no image can be straightened by the coefficients {self.coefficients.tolist()}: even its centre "
                "would map outside the original, or map twice to one place. Are they in OpenCV's order "
                "(k1, k2, p1, p2, k3, …), of this model, and for this `image_size`?"
            )
        while high / low > 1 + 1e-4:
            middle = np.sqrt(low * high)
            low, high = (low, middle) if self._covers(middle) else (middle, high)
        return self._zoomed(high)

    def straighten(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image `(height, width, 3)` of the calibrated size without distortion."""
        return np.asarray(_opencv().remap(pixels, *self._maps, _opencv().INTER_LINEAR), np.uint8)

    @cached_property
    def _maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row in the original of every pixel, (height, width) each, float32."""
        height, width = self.image_size
        columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
        places = self._in_original(self.pinhole_intrinsics, columns, rows).astype(np.float32)
        return np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])

    def _covers(self, zoom: float) -> bool:
        """Whether all pixels at this zoom lie inside the original, in the same order."""
        height, width = self.image_size
        places = self._in_original(
            self._zoomed(zoom), np.linspace(0, width - 1, GRID), np.linspace(0, height - 1, GRID)
        )
        inside = ((places >= 0) & (places <= (width - 1, height - 1))).all()
        in_order = (np.diff(places[..., 0], axis=1) > 0).all() and (np.diff(places[..., 1], axis=0) > 0).all()
        return bool(inside and in_order)

    def _zoomed(self, zoom: float) -> NDArray[np.float64]:
        return self.intrinsics * np.array([[zoom, zoom, 1], [zoom, zoom, 1], [1, 1, 1]])

    def _in_original(
        self, intrinsics: NDArray[np.float64], columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Where the pixels of a pinhole image lie in the original, (rows, columns, 2): column, row."""
        pixels = np.stack([*np.meshgrid(columns, rows), np.ones((len(rows), len(columns)))], axis=-1)
        rays = pixels.reshape(-1, 3).astype(np.float64) @ np.linalg.inv(intrinsics).T  # z = 1
        cv2, still = _opencv(), np.zeros(3)
        project: Callable = cv2.fisheye.projectPoints if self.model == "opencv_fisheye" else cv2.projectPoints
        places, _ = project(rays[:, None], still, still, self.intrinsics, self.coefficients)
        return places.reshape(len(rows), len(columns), 2)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "a lens with distortion needs OpenCV, which is not installed: pip install opencv-python-headless. Or "
            "straighten the images yourself, and leave out `distortion`."
        ) from error
    return cv2
