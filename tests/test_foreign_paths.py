"""A name stays in its folder, by its text; a link in the folder leads where its owner wants."""

from pathlib import Path

import pytest

from uov_hf.foreign_paths import inside


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png", "..", "./../x.png"])
def test_a_name_that_leads_out_is_refused_with_what_contains_it(name):
    message = f"^table.json: expected the name of a file in data, got {name!r}, .* make a link to it in the folder"
    with pytest.raises(ValueError, match=message):
        inside(Path("data"), name, Path("table.json"))


def test_a_link_in_the_folder_works_and_dots_do_not_follow_it(tmp_path):
    for name in ("disk/samples/a.bin", "disk/secret.bin", "root/secret.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "root" / "samples").symlink_to(tmp_path / "disk" / "samples")
    assert inside(tmp_path / "root", "samples/a.bin", "").read_text() == "disk/samples/a.bin"
    assert inside(tmp_path / "root", "./samples//a.bin", "").read_text() == "disk/samples/a.bin"
    # The system would look beside the target of the link.
    assert inside(tmp_path / "root", "samples/../secret.bin", "").read_text() == "root/secret.bin"
