"""Changes of files: of their bytes, of the values in JSON and YAML, and of checksums so that they fit the content."""

import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uov_hf.data.parquet_files import FOOTER_SHA256, NO_SHA256, seal_footer
from uov_hf.digests import write_digests
from uov_hf.labels.description import to_sealed_json


SEALED = 0x80  # in the first byte of an input: checksums are made right
STRANGE = (
    *(None, True, False, 0, 1, -1, 255, 256, 2**31, 2**53, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), "", " ", "0", "nan", "\0", "ü", "\ud800", "../x", "/etc/passwd", "a" * 300, "${x}"),
    *([], {}, [[]], [None], [{}], {"": None}, [1, 2, 3], [[1.0, 0.0], [0.0, 1.0]]),
)
# libFuzzer drops a first input that reaches no new line, as most files of a reader of many files do.
FROM_VALID = 0.3
CENTRAL = b"PK\1\2"  # the header of a member in the directory of a zip archive
BASIC_TYPES = (
    pa.string(),
    pa.binary(),
    pa.bool_(),
    pa.int64(),
    pa.float64(),
    pa.list_(pa.int8()),
    pa.list_(pa.string()),
)
TYPES: dict[str, pa.DataType] = {str(own): own for own in BASIC_TYPES}


def mutate(
    data: bytes,
    max_size: int,
    seed: int,
    mutate_bytes: Callable[[bytes, int], bytes],
    valid: Sequence[bytes] = (),
) -> bytes:
    """Change an input, or one of the `valid` ones: its values, where it is JSON, or its bytes."""
    rng = random.Random(seed)
    if valid and rng.random() < FROM_VALID:
        data = rng.choice(valid)
    head, content = data[:1] or b"\0", data[1:]
    if rng.random() < 0.6 and content[:1] in (b"{", b"["):
        with suppress(ValueError, RecursionError):  # it is no JSON, or nested too deeply
            tree = json.loads(content)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                tree = mutate_tree(tree, rng)
            return (head + json.dumps(tree).encode())[:max_size]
    return (head + mutate_bytes(content, max_size - 1))[:max_size]


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Replace, remove, copy or nest one value of a tree of JSON."""
    places: list[tuple[Any, Any]] = []  # container and key of each value
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            places += [(node, key) for key in keys]
            waiting += [node[key] for key in keys]
    if not places or rng.random() < 0.02:
        return deepcopy(rng.choice(STRANGE))
    node, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind == 0:
        del node[key]
    elif kind == 1:
        other, place = rng.choice(places)
        if isinstance(other, list) or place in other:
            node[key] = deepcopy(other[place])
    elif kind == 2 and isinstance(node, list):
        node.insert(key, deepcopy(node[key]))
    elif kind == 2:
        node[str(rng.choice(STRANGE))] = deepcopy(node[key])
    elif kind == 3 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        own = node[key] if abs(node[key]) < 1 << 200 else 1  # it grows each time, and no float is so large
        node[key] = rng.choice((own + 1, own - 1, -own, own * 2**33, float(own)))
    elif kind == 4:
        node[key] = [node[key]] if rng.random() < 0.5 else str(node[key])
    else:
        node[key] = deepcopy(rng.choice(STRANGE))  # without a copy, later changes would change the constant
    return tree


def sealed_seeds(path: Path) -> list[bytes]:
    """The content of inputs for a file whose checksums [`seal`] makes right; none for other files."""
    if path.suffix == ".parquet":
        return [describe_parquet(path.read_bytes())]
    names = ("label_set.json", "prompt_embeds.safetensors", "model.safetensors")
    has_checksums = path.suffix in (".npz", ".pt") or path.name in names
    return [path.read_bytes()] if has_checksums else []


def seal(path: Path) -> None:
    """Make checksums fit the content of a file; build a Parquet file from a description in JSON.

    A content that has no such form stays as it is.
    """
    content, description = path.read_bytes(), path.with_name("label_set.json")
    try:
        if path.suffix == ".parquet":
            write_parquet(path, content)
        elif path.suffix in (".npz", ".pt"):
            path.write_bytes(seal_zip(content))
        elif path.name == "model.safetensors":
            write_digests(path.parent, [path])
        elif path == description:
            path.write_bytes(to_sealed_json(json.loads(content)))
        elif description.exists():
            digest = {"prompt_embeds_sha256": hashlib.sha256(content).hexdigest()}
            description.write_bytes(to_sealed_json(json.loads(description.read_bytes()) | digest))
    except Exception:  # of any kind, as the content is random
        path.write_bytes(content)


def describe_parquet(content: bytes) -> bytes:
    """The columns of a Parquet file, their types and the metadata of its footer, as JSON for [`write_parquet`]."""
    table = pq.read_table(pa.BufferReader(content))
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks()
        values = values.storage if isinstance(values, pa.ExtensionArray) else values
        kind = f"{name}: {column.type}"  # extension types of other shapes have the same name
        TYPES[kind] = column.type
        columns[name] = {"type": kind, "values": values.to_pylist()}
    metadata = {
        key.decode(): value.decode()
        for key, value in (pq.read_metadata(pa.BufferReader(content)).metadata or {}).items()
    }
    kept = {key: value for key, value in metadata.items() if key not in ("ARROW:schema", FOOTER_SHA256)}
    tree = {"columns": columns, "metadata": {key: json.loads(value) for key, value in kept.items()}}
    return json.dumps(tree, default=lambda own: {"hex": own.hex()} if isinstance(own, bytes) else float(own)).encode()


def write_parquet(path: Path, description: bytes) -> None:
    """Write the Parquet file of a description, with a row in each row group and right checksums."""
    tree = json.loads(description, object_hook=lambda own: bytes.fromhex(own["hex"]) if [*own] == ["hex"] else own)
    table = pa.table({name: _column(own["type"], own["values"]) for name, own in tree["columns"].items()})
    with path.open("w+b") as file:
        with pq.ParquetWriter(file, table.schema, use_dictionary=False, write_page_checksum=True) as writer:
            writer.write_table(table, row_group_size=1)
            metadata = {key: json.dumps(value) for key, value in tree["metadata"].items()}
            writer.add_key_value_metadata(metadata | {FOOTER_SHA256: NO_SHA256})
        seal_footer(file)


def _column(kind: Any, values: Any) -> pa.Array:
    """The values as a type, or as the type that they have if they do not fit it."""
    wanted = TYPES.get(str(kind), pa.string())
    storage = wanted.storage_type if isinstance(wanted, pa.ExtensionType) else wanted
    try:
        array = pa.array(values, storage)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        array = pa.array(values)
        with suppress(pa.ArrowException):
            array = array.cast(storage)
    fits = isinstance(wanted, pa.ExtensionType) and array.type == storage
    return pa.ExtensionArray.from_storage(wanted, array) if fits else array


def seal_zip(content: bytes) -> bytes:
    """A zip archive of members that are stored as they are, with the checksums of their content."""
    sealed = bytearray(content)
    place = content.find(CENTRAL)
    while place >= 0 and place + 46 <= len(content):
        (size,), (local,) = (
            struct.unpack_from("<I", content, place + 20),
            struct.unpack_from("<I", content, place + 42),
        )
        name_length, extra_length = struct.unpack_from("<HH", content, local + 26)
        start = local + 30 + name_length + extra_length
        checksum = struct.pack("<I", zlib.crc32(content[start : start + size]))
        sealed[place + 16 : place + 20] = sealed[local + 14 : local + 18] = checksum
        place = content.find(CENTRAL, place + 4)
    return bytes(sealed)
