"""Strategies of hostile arrays, and the promise that the properties check."""

import dataclasses
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import uov_hf


PACKAGE = str(Path(uov_hf.__file__).parent)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 255.0, 1e4, 2e19, 1e308]
SPECIAL += [sign * value for sign in (1, -1) for value in (np.nan, np.inf, 1e9, 1e38, 3.3e38)]
FLOATS = ["f4", "f8", "f2", ">f4"]
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
OTHERS = ["?", "O", "c8", "S3", "U2", "M8[s]"]
INTEGER_LIMITS = [-(2**63), -(2**31), -32769, -256, -255, -2, -1, 255, 256, 32768, 2**31, 2**32, 2**63 - 1, 2**64 - 1]

# Each names what came, beside the argument.
CAME = re.compile(r"\bgot\b|from .* to |\bhas\b|\bcontains?\b|There (is|are) no|\bspan\b|occurs? again|sums to")


def result_or_error(names: Sequence[str], function: Callable, *args: Any, **options: Any) -> Any:
    """The result of a call; None if it raised a documented error, whose message names one of the arguments.

    Fails if it raises another exception, if the error comes from a library, if an argument changes, or if a value is
    converted whose result depends on the processor.
    """
    before = [(array, _content(array)) for array in _arrays([args, options])]
    result = None
    with warnings.catch_warnings():
        for message in ("invalid value encountered in cast", ".*not writable", ".*discards the imaginary part"):
            warnings.filterwarnings("error", message)
        warnings.filterwarnings("ignore", "(overflow|invalid value|divide by zero|Mean of empty).*")
        warnings.filterwarnings("error", "invalid value encountered in cast")
        try:
            result = function(*args, **options)
        except (ValueError, TypeError) as error:
            check_error(error, names)
    for array, content in before:
        assert _content(array) == content, f"{function} changed an argument"
    return result


def check_error(error: Exception, names: Sequence[str]) -> None:
    """Check that an error is raised by the package, names an argument, and contains what came."""
    message, place = str(error), traceback.extract_tb(error.__traceback__)[-1]
    assert place.filename.startswith(PACKAGE), f"{place.filename}:{place.lineno}: {error!r}"
    assert any(f"`{name}`" in message for name in names), f"{error!r} names none of {names}"
    assert CAME.search(message), f"{error!r} does not contain what came"


def _arrays(values: Any) -> Iterator[np.ndarray | torch.Tensor]:
    if isinstance(values, (np.ndarray, torch.Tensor)):
        yield values
    elif dataclasses.is_dataclass(values) and not isinstance(values, type):
        yield from _arrays(list(vars(values).values()))
    elif isinstance(values, Mapping):
        yield from _arrays(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _arrays(value)


def _content(array: np.ndarray | torch.Tensor) -> Any:
    if isinstance(array, torch.Tensor):
        return str(array.dtype), array.shape, array.detach().contiguous().numpy().tobytes()
    return array.dtype.str, array.shape, repr(array.tolist()) if array.dtype == object else array.tobytes()


def generators() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def layouts(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """The same values in another memory layout."""
    kind = draw(st.sampled_from(["C", "F", "backwards", "every second", "read-only", "swapped"]))
    if kind == "F":
        return np.asfortranarray(array)
    if kind == "backwards":
        return array[::-1].copy()[::-1]
    if kind == "every second":
        return np.repeat(array, 2, axis=0)[::2]
    if kind == "swapped":
        return array.astype(array.dtype.newbyteorder("S")) if array.dtype.kind in "iuf" else array
    array = array.copy()
    array.setflags(write=kind != "read-only")
    return array


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Floating-point values in any dtype; whole numbers stay inside its range."""
    kind = np.dtype(dtype).kind
    with np.errstate(all="ignore"):
        if kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.nan_to_num(values), float(limits.min), float(limits.max) / 1.001).astype(dtype)
        elif kind == "M":
            values = np.nan_to_num(values).clip(0, 1e9).astype("i8")
        return values.astype(dtype)


@st.composite
def clouds(
    draw: st.DrawFn,
    max_points: int = 40,
    columns: Sequence[int] = (3, 4, 5),
    dtypes: Sequence[str] = ("f4",),
    scales: Sequence[float] = (0.01, 1.0, 30.0, 1e3),
    special: bool = True,
) -> np.ndarray:
    """Points with repeated ones and, with `special`, values such as NaN, infinity and 1e38."""
    num_points, num_columns = draw(st.integers(0, max_points)), draw(st.sampled_from(columns))
    generator, scale = draw(generators()), draw(st.sampled_from(scales))
    points = generator.normal(0, scale, (num_points, num_columns))
    if num_columns > 3:
        points[:, 3:] = np.abs(points[:, 3:]) % 1
    if num_points and draw(st.booleans()):
        points = points[generator.integers(0, draw(st.integers(1, num_points)), num_points)]
    if num_points and special:
        places = st.tuples(st.integers(0, num_points - 1), st.integers(0, num_columns - 1), st.sampled_from(SPECIAL))
        for row, column, value in draw(st.lists(places, max_size=4)):
            points[row, column] = value
    return draw(layouts(cast(points, draw(st.sampled_from(dtypes)))))


@st.composite
def anything(draw: st.DrawFn, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str] | None = None) -> Any:
    """Arrays of one of the shapes or another one, of any dtype and layout, with special values; seldom no array."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.sampled_from([None, "points", 3, [], [[1, 2, 3], [4]], {"a": 1}]))
    sizes = st.tuples(*[st.integers(0, 6)] * draw(st.integers(0, 4)))
    shape = draw(st.one_of(st.sampled_from(shapes), st.sampled_from(shapes), st.sampled_from(shapes), sizes))
    dtype = draw(st.sampled_from(dtypes or [*FLOATS, *FLOATS, *INTEGERS, *OTHERS]))
    values = draw(generators()).normal(0, draw(st.sampled_from([0.5, 3.0, 100.0, 1e9])), shape)
    array = cast(values, dtype)
    if array.size:
        special = INTEGER_LIMITS if array.dtype.kind in "iu" else SPECIAL
        for place, value in draw(
            st.lists(st.tuples(st.integers(0, array.size - 1), st.sampled_from(special)), max_size=4)
        ):
            if array.dtype.kind in "iu" and not np.iinfo(array.dtype).min <= value <= np.iinfo(array.dtype).max:
                continue
            if array.dtype.kind in "iufO":
                with np.errstate(all="ignore"):
                    array.reshape(-1)[place] = value
    return draw(layouts(array)) if array.ndim else array


@st.composite
def ids(
    draw: st.DrawFn, size: int, num_ids: int, dtypes: Sequence[str] = ("i8", "i4", "u1"), also: int | None = None
) -> np.ndarray:
    """Valid ids `(size,)`, in any integer dtype and layout."""
    values = draw(generators()).integers(0, max(num_ids, 1), size)
    if also is not None and size:
        values[draw(generators()).random(size) < 0.2] = also
    return draw(layouts(values.astype(draw(st.sampled_from(dtypes)))))


def as_tensor(values: Any) -> Any:
    """A tensor of an array, where torch has such; else the array."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iufb?c":
        return values
    return torch.from_numpy(np.array(values, values.dtype.newbyteorder("="), order="C"))


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same values; NaN equals NaN."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
