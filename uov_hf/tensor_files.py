"""Read `.pt` files of tensors and plain values, without running code: every error names the file."""

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor


StandIn = Callable[..., Any] | tuple[Callable[..., Any], str]

START_OF_ZIP = b"PK\x03\x04"
NUM_PICKLES = 5  # of a file without an archive: three of a header, the content, and the names of the storages
# PyTorch admits these, but they make large values of a few bytes, or tensors that are not dense.
REFUSED = re.compile(
    r"(builtins|__builtin__) bytearray|torch[\w.]* \w*Tensor|torch\._tensor \w+"
    r"|torch\._utils _rebuild_(?!tensor|parameter)\w+"
)
OF_PYTHON = re.compile(r"(builtins|__builtin__|collections|torch) \w+")  # functions of plain values, such as `set`
MAX_DEPTH = 100  # of tuples
MAX_REPEATS = 10  # values that a pickle repeats, for each of its bytes
REAL = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
REAL |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def read_tensor_file(path: Path, stand_ins: Sequence[StandIn] = ()) -> Any:
    """The content of a PyTorch file. It may have tensors of any kind: see [`plain_tensor`].

    Args:
        path (`Path`): The file.
        stand_ins (sequence, *optional*): What it may contain beside tensors and plain values.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It contains anything else, or repeats values until they fill the memory.
    """
    with path.open("rb") as file:
        try:
            checked = _check_archive(file) if file.read(4) == START_OF_ZIP else _check_pickles(file)
            with torch.serialization.safe_globals(list(stand_ins)):
                return torch.load(checked, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken pickle raises whatever its bytes lead to
            # PyTorch replaces an error by advice to read the file in another way, which runs its code.
            first = error.__context__ or error if isinstance(error, pickle.UnpicklingError) else error
            raise ValueError(
                f"{path}: expected a PyTorch file of tensors and plain values, which can be read without running "
                f"code, got: {type(first).__name__}: {first!s:.500}"
            ) from error


def plain_tensor(value: Tensor, path: Path) -> Tensor | None:
    """The tensor without gradient and attributes; None if it is not dense or not real, or larger than its file."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return None
    value = Tensor.detach(value)  # an attribute may have the name of a method
    is_dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
    if not is_dense or value.dtype not in REAL or value.is_neg():
        return None
    # A stride of 0 makes a tensor of any size from one number.
    num_bytes = value.untyped_storage().nbytes()
    return value if value.numel() * value.element_size() <= num_bytes <= path.stat().st_size else None


def _check_archive(file: BinaryIO) -> BinaryIO:
    """A copy of the archive: PyTorch could find other members in the file than this check."""
    copy, size = io.BytesIO(), file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as checked:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its members are compressed, which `torch.save` does not do")
        if sum(member.file_size for member in members) > size or len(set(archive.namelist())) < len(members):
            raise ValueError("its members overlap")
        for member in members:
            del member.CRC  # of no meaning in files that PyTorch wrote without checksums
            content = archive.read(member)
            if member.filename.endswith(".pkl"):
                _check_pickle(io.BytesIO(content))
            checked.writestr(member.filename, content)
    copy.seek(0)
    return copy


def _check_pickles(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    if file.read(1) != pickle.PROTO:
        raise ValueError("a file of another format")
    file.seek(0)
    for _ in range(NUM_PICKLES):
        _check_pickle(file)
    file.seek(0)
    return file


@dataclass(slots=True)
class Value:
    """What is known of a value on the stack of a pickle."""

    size: int = 1  # of its parts; eight characters of a text are one
    depth: int = 0  # of tuples
    name: str = ""  # of a function
    is_called: bool = False  # whether a function made it
    parts_called: bool = False  # whether a function made an element of this tuple


def _check_pickle(file: BinaryIO) -> None:
    """Refuse what takes much more time or memory than the pickle has bytes, or ends the process.

    PyTorch computes hashes of keys, which visit all of a tuple, as deep as it is. A short pickle can also give the
    same values to many functions, or a tensor with a stride of 0 to one that makes a Python object of each element.
    """
    stack: list[Value] = []
    marks: list[int] = []
    memo: dict[int, Value] = {}
    start, repeated = file.tell(), 0
    argument: Any  # mypy does not derive it from the opcode
    for opcode, argument, place in pickletools.genops(file):
        name, has_mark = opcode.name, pickletools.markobject in opcode.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif "PUT" in name:
            memo[argument] = stack[-1]
        elif "GET" in name:
            stack.append(memo[argument])
            repeated += memo[argument].size
            if repeated > MAX_REPEATS * ((place or 0) - start) + 1000:
                raise ValueError("it repeats values that it contains once")
        else:
            first = marks.pop() if has_mark else len(stack) - len(opcode.stack_before)
            items = stack[first:]
            del stack[first:]
            if name in ("REDUCE", "NEWOBJ", "BUILD") and items[-1].is_called:
                raise ValueError("it gives a tensor to a function of plain values")
            if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
                owner = stack.pop() if has_mark else items.pop(0)
                owner.size += sum(item.size for item in items)
                stack.append(owner)
            else:
                made = Value(1 + sum(item.size for item in items))
                if isinstance(argument, (str, bytes)):
                    made.size += len(argument) // 8
                if name == "GLOBAL":
                    made.name = argument
                    if REFUSED.fullmatch(argument):
                        raise ValueError(f"it contains {argument.replace(' ', '.')}, which no dense tensor needs")
                elif "TUPLE" in name:
                    made.depth = 1 + max((item.depth for item in items), default=0)
                    made.parts_called = any(item.is_called for item in items)
                    if made.depth > MAX_DEPTH:
                        raise ValueError(f"it contains tuples inside each other, more than {MAX_DEPTH} deep")
                elif name in ("REDUCE", "NEWOBJ", "BINPERSID"):
                    made.is_called = True
                    if items[-1].parts_called and OF_PYTHON.fullmatch(items[0].name):
                        raise ValueError("it gives a tensor to a function of plain values")
                stack += [made for _ in opcode.stack_after]
