"""Files of tensors are read as `torch.load` reads them, or refused by name before they take time or memory."""

import io
import struct
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from uov_hf.tensor_files import plain_tensor, read_tensor_file


class Calls:
    """Becomes, in a file, a call of a function with these arguments."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def write_pickle(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


CONTENT = {
    "weights": OrderedDict(a=torch.arange(6.0).reshape(2, 3).T, b=torch.nn.Parameter(torch.ones(2))),
    "views": [torch.arange(4)[1:3], torch.zeros(0), torch.tensor(2)],
    "kinds": [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.bool, torch.complex64)],
    "plain": {"size": torch.Size([2]), "set": {1, 2}, "kind": torch.float32, "steps": Counter([3, 3]), "bytes": b"ab"},
    "names": ["a long name of a category"] * 3 + [("a", ("b", 1))] * 3,
}


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_file_is_read_as_pytorch_reads_it(tmp_path, is_archive):
    path = tmp_path / "a.pt"
    content = CONTENT | ({"new": torch.ones(2, dtype=torch.uint16)} if is_archive else {})
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    found, expected = read_tensor_file(path), torch.load(path, weights_only=True)
    assert str(found) == str(expected)
    assert torch.equal(found["weights"]["a"], CONTENT["weights"]["a"])


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.eye(3), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_tensor_file(tmp_path / "a.pt"), torch.eye(3))


def compressed(content):
    stored, copy = io.BytesIO(), io.BytesIO()
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in archive.namelist():
            changed.writestr(name, archive.read(name))
    return copy.getvalue()


TO_HALF = torch._utils._rebuild_device_tensor_from_cpu_tensor
FROM_TYPE = torch._tensor._rebuild_from_type_v2
MANY = torch.zeros(1).expand(10**9)
EXPANDED = torch.zeros(1).expand(10**9, 2)
REFUSED = {
    "an array of a number": (Calls(bytearray, (1 << 40,)), "it contains __builtin__.bytearray"),
    "another type": (Calls(TO_HALF, (MANY, torch.half, "cpu", False)), "it contains torch._utils"),
    "a tensor of a list": (Calls(torch.Tensor, ([[0] * 1000] * 1000,)), "it contains torch.*Tensor"),
    "a set of a tensor": (Calls(set, (MANY,)), "gives a tensor to a function"),
    "attributes of a tensor": (Calls(OrderedDict, (), EXPANDED), "gives a tensor to a function"),
    "another function": (Calls(FROM_TYPE, (set, set, (MANY,), {})), "it contains torch._tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_small_file_of_a_large_value_is_refused(tmp_path, name):
    content, message = REFUSED[name]
    path = tmp_path / "a.pt"
    torch.save({"a": content}, path)
    with pytest.raises(ValueError, match=f"a.pt: expected a PyTorch file .*({message})"):
        read_tensor_file(path)


DEEP = b")" + b"\x85" * 200
DOUBLED = b")" + b"".join(b"q%c(h%ch%ct" % (place, place, place) for place in range(60))
SHARED_TEXT = text(b"x" * 30000) + b"q\0" + text(b"latin1") + b"q\1"
ENCODED = b"c_codecs\nencode\nq\2" + b"h\2h\0h\1\x86R" * 300
KEYS = {
    "deep": (b"\x80\x02}(" + DEEP + b"K\x01u.", "tuples inside each other"),
    "doubled": (b"\x80\x02}(" + DOUBLED + b"K\x01u.", "repeats values"),
    "encoded": (b"\x80\x02(" + SHARED_TEXT + ENCODED + b"t.", "repeats values"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_pickle_that_repeats_or_nests_its_values_is_refused(tmp_path, name):
    """A hash of a tuple visits all of it, as deep as it is: the process ended, or computed without end."""
    pickled, message = KEYS[name]
    write_pickle(tmp_path / "a.pt", pickled)
    with pytest.raises(ValueError, match=f"a.pt: expected a PyTorch file .*{message}"):
        read_tensor_file(tmp_path / "a.pt")


def test_an_archive_with_compressed_members_is_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(compressed(torch.zeros(1 << 16)))
    with pytest.raises(ValueError, match="a.pt: expected a PyTorch file .* its members are compressed"):
        read_tensor_file(tmp_path / "a.pt")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OSError, match="a.pt"):
        read_tensor_file(tmp_path / "a.pt")


PLAIN = {
    "a parameter": (torch.nn.Parameter(torch.ones(2)), True),
    "a view": (torch.arange(4)[1:3], True),
    "an expanded tensor": (torch.ones(1).expand(4), False),
    "a sparse tensor": (torch.ones(2).to_sparse(), False),
    "a complex tensor": (torch.ones(2, dtype=torch.complex64), False),
    "a tensor without numbers": (torch.ones(2, device="meta"), False),
    "a tensor of tensors": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), False),
    "a larger tensor than the file": (torch.ones(4000), False),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_tensor_is_dense_and_real_and_in_the_file(tmp_path, name):
    value, is_plain = PLAIN[name]
    (tmp_path / "a.pt").write_bytes(b"x" * 1000)
    assert (plain_tensor(value, tmp_path / "a.pt") is not None) == is_plain


def test_attributes_with_the_names_of_methods_are_dropped(tmp_path):
    function = torch._utils._rebuild_parameter_with_state
    torch.save(Calls(function, (torch.ones(2), False, OrderedDict(), {"detach": 5, "numel": 5})), tmp_path / "a.pt")
    found = plain_tensor(read_tensor_file(tmp_path / "a.pt"), tmp_path / "a.pt")
    assert found is not None and type(found) is torch.Tensor and not found.__dict__
