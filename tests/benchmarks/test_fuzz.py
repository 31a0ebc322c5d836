"""Every reader reads its small files, and refuses damaged ones as promised; what is not promised is found."""

import json
import random
import sys
from pathlib import Path

import pytest

import uov_hf


for library in ("laspy", "plyfile", "pypcd4", "rosbags"):
    pytest.importorskip(library)
if not sys.platform.startswith("linux"):
    pytest.skip("the memory of a read is measured on Linux", allow_module_level=True)
from fuzz_inputs import SEALED, STRANGE, mutate, mutate_tree, seal_zip  # noqa: E402
from fuzz_readers import READERS, Reader  # noqa: E402
from fuzz_target import MAX_SAMPLE, Target  # noqa: E402


NUM_INPUTS = 12  # of each reader; `python benchmarks/fuzz.py` reads millions


def damage(content: bytes, max_size: int, rng: random.Random) -> bytes:
    """Cut the content, or change some bytes."""
    changed = bytearray(content[:max_size])
    if rng.random() < 0.3:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    for _ in range(rng.choice((1, 2, 5)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.fixture
def target(tmp_path):
    targets = []

    def make(name: str) -> Target:
        targets.append(Target(name, tmp_path))
        return targets[-1]

    yield make
    for own in targets:
        own.is_reading = False  # an audit hook stays for the life of the process


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_by_name(name, target):
    own, rng = target(name), random.Random(0)
    seeds = own.seeds()
    for data in seeds:
        own(data)  # imports what a reader imports late
    faults = [own(data) for data in seeds]
    for number in range(NUM_INPUTS):
        data = mutate(rng.choice(seeds), 1 << 16, number, lambda content, size: damage(content, size, rng))
        faults.append(own(data))
    assert [fault for fault in faults if fault is not None] == []
    assert all(path.read_bytes() == content for path, content in own.originals.items())


def test_a_whole_official_network_is_converted(target):
    """Without one, no input reached what follows the check of the names."""
    own = target("official")
    assert own(max(own.seeds(), key=len)[:MAX_SAMPLE]) is None
    assert (own.folder / "converted" / "model.safetensors").exists()


def read_badly(folder, path):
    content = path.read_bytes()
    if content == b"error":
        raise KeyError("x")
    if content == b"no name":
        raise ValueError("x")
    if content == b"name":
        raise ValueError(f"{path}: x")
    if content == b"foreign":
        open(folder.parent / "other").close()
    if content == b"written":
        (folder.parent / "other").write_text("x")
    if content == b"code":
        exec(compile("1", str(path), "exec"))
    if content == b"code of a text":
        exec("1")
    if content == b"memory":
        b"x" * (200 << 20)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"error", "KeyError"),
        (b"no name", "ValueError"),
        (b"foreign", "foreign"),
        (b"written", "foreign"),
        (b"code", "foreign"),
        (b"code of a text", "foreign"),
        (b"memory", "memory"),
        (b"name", None),
        (b"fine", None),
    ],
)
def test_what_is_not_promised_is_found(content, kind, tmp_path, monkeypatch, target):
    reader = Reader(lambda folder: (folder / "a.x").write_bytes(b"fine"), read_badly, ("*.x",))
    monkeypatch.setitem(READERS, "bad", reader)
    (tmp_path / "other").write_text("x")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(Path(uov_hf.__file__).parent)  # its files are programs: no relative name is one
    fault = Target("bad", tmp_path / "folder")(b"\0" + content)
    assert (fault and fault.kind) == kind


def test_new_checksums_make_a_changed_archive_readable(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", x=np.arange(4))
    content = (
        (tmp_path / "a.npz").read_bytes().replace(bytes([3, 0, 0, 0, 0, 0, 0, 0]), bytes([9, 0, 0, 0, 0, 0, 0, 0]))
    )
    (tmp_path / "a.npz").write_bytes(seal_zip(content))
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2, 9]


@pytest.mark.parametrize("name", ["frames", "label set"])
def test_a_parquet_file_is_built_of_its_description(name, target):
    own = target(name)
    built = [data for data in own.seeds() if data[0] & SEALED and own.paths[data[0] & ~SEALED].suffix == ".parquet"]
    for data in built:
        path = own.paths[data[0] & ~SEALED]
        path.write_bytes(data[1:])
        from fuzz_inputs import seal

        seal(path)
        assert path.read_bytes()[:4] == b"PAR1"
        own.reader.read(own.folder, path)
    assert built


def test_a_number_too_large_for_a_float_is_changed():
    changed = [mutate_tree({"depth": 10**400}, random.Random(seed)) for seed in range(100)]
    assert {"depth": 10**400 + 1} in changed or {"depth": 2} in changed


def test_a_change_of_a_tree_leaves_later_changes_alone():
    """Trees once contained the constants of the fuzzing themselves, which then grew, and contained themselves."""
    before = repr(STRANGE)
    for seed in range(2000):
        rng, tree = random.Random(seed), {"a": [[], {}], "b": [1]}
        for _ in range(4):
            tree = mutate_tree(tree, rng)
        json.dumps(tree)
    assert repr(STRANGE) == before


def test_changes_begin_with_valid_files_too():
    def keep(content, max_size):
        return content[:max_size]

    changed = [mutate(b"\0garbage", 100, seed, keep, [b"\1one", b"\2two"]) for seed in range(300)]
    assert 60 < changed.count(b"\1one") + changed.count(b"\2two") < 120 and b"\1one" in changed and b"\2two" in changed
    assert {mutate(b"\0garbage", 100, seed, keep) for seed in range(300)} == {b"\0garbage"}
