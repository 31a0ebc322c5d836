"""The command `uov-hf`: what it prints, and with which status it ends."""

import os
import sys

import pytest

from uov_hf.cli import main
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


def test_a_prompt_stands_beside_its_class_and_raw_id(capsys):
    assert main(["vocabulary", "nuscenes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nuscenes: 16 classes, 32 raw classes, 175 prompts"
    assert "  6  pedestrian            thing  #0000e6  2, 3, 4, 6" in lines
    header, *rows = lines[-176:]
    assert header.split("  ")[0] == "row" and len(rows) == 175
    for column in ("prompt", "class", "raw class"):
        assert {row[header.index(f"  {column}") :][:2] for row in rows} == {"  "}
    assert rows[28].split() == ["28", "scooter", "motorcycle", "21", "vehicle.motorcycle"]
    assert rows[74].split() == ["74", "scooter", "(ignored)", "5", "human.pedestrian.personal_mobility"]
    assert "' rolling hills'" in rows[111]


def test_without_a_name_the_vocabularies_are_listed(capsys):
    assert main(["vocabulary"]) == 0
    assert capsys.readouterr().out.split() == available_vocabularies()


@pytest.mark.parametrize("name", available_vocabularies())
def test_every_vocabulary_is_printed(name, capsys):
    assert main(["vocabulary", name]) == 0
    out = capsys.readouterr().out
    assert all(class_name in out for class_name in load_vocabulary(name).class_names)


def test_a_file_of_ones_own_is_printed_or_its_line_is_named(tmp_path, capsys):
    path = tmp_path / "yard.yaml"
    path.write_text("name: yard\nclasses:\n  - {name: vehicle, prompts: [car, truck]}\n")
    assert main(["vocabulary", str(path)]) == 0
    assert "  1  truck   vehicle       0  vehicle" in capsys.readouterr().out
    path.write_text("name: yard\nclasses:\n  - {name: vehicle}\n")
    assert main(["vocabulary", str(path)]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and f"uov-hf: {path}, line 3: a class has `name`, `prompts`" in streams.err


def test_a_wrong_name_and_a_wrong_command_end_differently(capsys):
    assert main(["vocabulary", "nuscene"]) == 1
    assert "no vocabulary 'nuscene': expected one of cityscapes, nuscenes" in capsys.readouterr().err
    for arguments in ([], ["vocabularies"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        main(["vocabulary", "--help"])
    assert end.value.code == 0 and "uov-hf vocabulary nuscenes" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        assert main(["vocabulary", "nuscenes"]) == 0
