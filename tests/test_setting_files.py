"""JSON and YAML of any content are read, or refused by the name of the file."""

import pytest

from uov_hf.setting_files import read_json, read_yaml_values


LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff{", b'{"a": "\\ud800"}', b"{", b""])
def test_a_json_file_of_any_content_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json: expected JSON, got"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [b"[" * 10_000, b"\xff{", b"a: !!int ''", b"a: !!bool x", b"a: !!timestamp x", b"a: &a [*a]", LAUGHS.encode()],
    ids=["deep", "bytes", "int", "bool", "time", "circle", "aliases"],
)
def test_a_yaml_file_of_any_content_is_named(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match="a.yaml: expected YAML or JSON, got"):
        read_yaml_values(tmp_path / "a.yaml")


def test_aliases_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: *a")
    assert read_yaml_values(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("content", [b'["\xed\xa0\x80"]', '["\\ud800"]'.encode("utf-16-le"), b'["\\ud800"]'])
def test_half_of_a_surrogate_pair_is_named_in_every_encoding(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: expected JSON, got"):
        read_json(path)
