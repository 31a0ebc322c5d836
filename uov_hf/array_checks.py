"""Checks of arrays that a caller passes: a message names the argument, what was expected and what came."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


Array = np.ndarray | torch.Tensor
HARDLY_SUPPORTED = (torch.uint16, torch.uint32, torch.uint64)  # torch compares and indexes with none of them
KINDS = {"iuf": "numbers", "iu": "whole numbers", "f": "floating-point numbers", "b": "bool"}


def check_array(name: str, values: object, shape: Sequence[int | str], kinds: str = "iuf") -> None:
    """Check the type, the dtype and the shape of an array or a tensor.

    Args:
        name (`str`): The argument, for messages.
        values (`object`): What was passed.
        shape (sequence of `int` or `str`): The size of each axis; "3 or more", or a word for any size.
        kinds (`str`, *optional*, defaults to `"iuf"`): A key of `KINDS`.

    Raises:
        ValueError: It is no array, or another one.
    """
    expected = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    if not isinstance(values, (np.ndarray, torch.Tensor)):
        raise ValueError(f"`{name}` must be an array of shape {expected}, got {type(values).__name__}.")
    fits = len(shape) == values.ndim and all(map(_fits, shape, values.shape))
    if not fits or kind_of(values) not in kinds:
        raise ValueError(
            f"`{name}` must be {KINDS[kinds]} of shape {expected}, got {values.dtype} of shape {tuple(values.shape)}."
        )


def check_ids(name: str, ids: object, num_rows: int | str, num_ids: int, also: int | None = None) -> None:
    """Check ids or row numbers `(num_rows,)`: NumPy and torch read a negative one from the end of an array.

    Args:
        name (`str`): The argument, for messages.
        ids (`object`): What was passed.
        num_rows (`int` or `str`): Their number, or a word for any number.
        num_ids (`int`): They must be at least 0 and below this.
        also (`int`, *optional*): One more id that is allowed, such as 255.

    Raises:
        ValueError: They are no whole numbers of this shape, or, on a CPU, one is out of range. On an accelerator,
            reading the values would stop the queue, and `torch.compile` cannot trace it.
    """
    check_array(name, ids, (num_rows,), "iu")
    if isinstance(ids, torch.Tensor) and (ids.device.type != "cpu" or torch.compiler.is_compiling()):
        return
    found = np.asarray(ids)
    if not len(found) or 0 <= found.min() <= found.max() < num_ids:
        return
    wrong = found[(found < 0) | (found >= num_ids)]
    wrong = wrong if also is None else wrong[wrong != also]
    if len(wrong):
        expected = f"lie between 0 and {num_ids - 1}{'' if also is None else f', or be {also}'}"
        raise ValueError(f"`{name}` must {expected}, got {wrong.min()} to {wrong.max()}.")


def _fits(size: int | str, found: int) -> bool:
    if isinstance(size, str):
        return not size.endswith(" or more") or found >= int(size.split()[0])
    return found == size


def kind_of(values: Array) -> str:
    """The kind of a dtype as NumPy abbreviates it; `f`, `i`, `c` or `b` of a tensor."""
    if isinstance(values, np.ndarray):
        return values.dtype.kind
    if values.is_complex() or values.dtype in HARDLY_SUPPORTED:
        return "c" if values.is_complex() else "unsigned"  # in no key of `KINDS`
    return "f" if values.is_floating_point() else "b" if values.dtype == torch.bool else "i"


def to_tensor(name: str, values: Any) -> torch.Tensor:
    """A tensor of numbers. Of an array or a list it is a copy, in any memory layout and byte order.

    Raises:
        ValueError: `values` does not contain numbers.
    """
    if isinstance(values, torch.Tensor):
        array: Array = values.long() if values.dtype in HARDLY_SUPPORTED else values
    else:
        array = to_numbers(name, values)
    if kind_of(array) not in "iuf":
        raise ValueError(f"`{name}` must be {KINDS['iuf']}, got {array.dtype}.")
    if isinstance(array, torch.Tensor):
        return array
    array = to_int64(array) if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array
    dtype = np.dtype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype
    return torch.from_numpy(np.array(array, dtype.newbyteorder("="), order="C"))


def to_xyz(points: Any) -> torch.Tensor:
    """The first three columns `(num_points, 3)` of the argument `points`; see [`to_tensor`].

    Raises:
        ValueError: They are no numbers of shape `(num_points, 3 or more)`.
    """
    given = points if isinstance(points, torch.Tensor) else to_numbers("points", points)
    if given.ndim != 2 or given.shape[1] < 3:
        raise ValueError(f"`points` must have shape (num_points, 3 or more), got {tuple(given.shape)}.")
    return to_tensor("points", given[:, :3])


def to_numbers(name: str, values: Any) -> np.ndarray:
    """An array of numbers from an array or nested lists.

    Raises:
        ValueError: `values` does not contain numbers, or the lists are of different lengths.
    """
    array = to_array(name, values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must be {KINDS['iuf']}, got {array.dtype}.")
    return array


def to_array(name: str, values: Any) -> np.ndarray:
    """`np.asarray` with an error that names the argument."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`{name}` must be an array, got {type(values).__name__}: {error}") from error


def to_int64(ids: np.ndarray) -> np.ndarray:
    """Whole numbers as int64; larger ones become the largest, and not a negative number, perhaps a valid id."""
    return (ids.clip(max=np.iinfo(np.int64).max) if ids.dtype == np.uint64 else ids).astype(np.int64)


def to_sizes(num_points: Any, total: int, counted: str) -> list[int]:
    """The number of points of each scan of a batch; of None, that of one scan.

    Args:
        num_points (array or sequence of `int`, *optional*): As the caller passed it.
        total (`int`): Their sum.
        counted (`str`): The argument that has `total` rows, for messages.

    Raises:
        ValueError: They are no whole numbers from 0 with this sum.
    """
    if num_points is None:
        return [total]
    sizes = to_tensor("num_points", num_points)
    sizes = sizes if len(sizes.shape) != 1 or len(sizes) else sizes.long()  # an empty list becomes float64
    check_array("num_points", sizes, ("num_scans",), "iu")
    if (sizes < 0).any() or sizes.sum() != total:
        raise ValueError(
            f"`num_points` must be numbers from 0 that sum to {total}, the rows of `{counted}`, got {sizes.tolist()}, "
            f"which sums to {sizes.sum()}."
        )
    return sizes.tolist()
