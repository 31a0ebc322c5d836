"""The command `uov-hf`: what it prints and writes, with which status it ends, and what it does not import."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uov_hf.vocabulary import available_vocabularies, load_vocabulary
from uov_hf_cli.__main__ import COMMANDS, main


def run_command(*arguments, **options) -> subprocess.CompletedProcess:
    """`uov-hf …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "uov_hf_cli", *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.fixture
def scan(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    points = generator.uniform([-10, -10, -2, 0], [10, 10, 2, 1], (300, 4)).astype(np.float32)
    path = tmp_path / "scan.npy"
    np.save(path, points)
    return path


def test_each_prompt_has_its_class_and_raw_id_beside_it(capsys):
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


def test_every_vocabulary_is_listed_and_printed(capsys):
    assert main(["vocabulary"]) == 0
    names = capsys.readouterr().out.split()
    assert names == available_vocabularies()
    for name in names:
        assert main(["vocabulary", name]) == 0
        printed = capsys.readouterr().out
        assert all(class_name in printed for class_name in load_vocabulary(name).class_names)


def test_a_vocabulary_file_is_printed_or_its_wrong_line_is_named(tmp_path, capsys):
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


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_its_parser_accepts(name, capsys, monkeypatch):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    help_text = capsys.readouterr().out
    examples = [line.strip() for line in help_text.replace("\\\n", " ").splitlines() if f"  uov-hf {name}" in line]
    assert end.value.code == 0 and examples
    monkeypatch.setattr(f"uov_hf_cli.{name.replace('-', '_')}.run", lambda args: ["accepted"])
    for example in examples:
        words = [word.strip('"') for word in example.split("    ")[0].split(" > ")[0].replace(", ", ",").split()[1:]]
        assert main(words) == 0, example
        assert capsys.readouterr().out == "accepted\n"


def test_help_imports_no_torch():
    """Help must appear at once: `benchmarks/imports.py` measures the time."""
    program = (
        "import sys\nfrom uov_hf_cli.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('imported:', *sorted({'torch', 'transformers', 'numpy', 'uov_hf'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(f"\n    {name}" in printed for name in COMMANDS) and printed.endswith("imported:\n")


def test_a_closed_pipe_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        assert main(["vocabulary", "nuscenes"]) == 0


def test_results_of_segment_are_shown(tiny_segmenter, scan, tmp_path, capsys):
    folder, page = tmp_path / "out", tmp_path / "again.html"
    options = ["segment", str(scan), "--model_name_or_path", str(tiny_segmenter), "--output_dir", str(folder)]
    assert main([*options, "--candidate_labels", "tree, car"]) == 0
    classes = json.loads((folder / "classes.json").read_text())["classes"]
    options = ["view", str(scan), "--labels", str(folder / "labels.npy"), "--scores", str(folder / "scores.npy")]
    assert main([*options, "--output", str(page)]) == 0
    assert f"{page}: 300 points" in capsys.readouterr().out
    present = {entry["name"] for entry in classes if entry["num_points"]}
    assert present and all(f'"{name}"' in page.read_text(encoding="utf-8") for name in present)

    assert main([*options, "--vocabulary", "nuscenes"]) == 1  # its class 0 is no tree
    assert "classes.json: the classes of the labels are tree, car, not those" in capsys.readouterr().err


def test_segment_needs_no_package_of_the_extra_train(tiny_segmenter, scan, tmp_path):
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['accelerate', 'datasets', 'matplotlib', 'pyarrow', 'scipy'])\n"
        "from uov_hf_cli.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    folder = tmp_path / "out"
    options = ["segment", scan, "--model_name_or_path", tiny_segmenter, "--output_dir", folder, "--refine", "afi"]
    done = subprocess.run([sys.executable, "-c", program, *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in folder.iterdir()}
    assert written == {"birds_eye_view.png", "classes.json", "labels.npy", "scores.npy", "viewer.html"}


def test_an_error_of_segment_is_one_line(tiny_segmenter, scan, tmp_path, capsys):
    folder = ["--output_dir", str(tmp_path / "out")]
    for source, model, options, message in [
        (tmp_path / "missing.bin", tiny_segmenter, [], "missing.bin"),
        (tmp_path / "nowhere", tiny_segmenter, [], "nowhere: expected a file with points, but there is no such file"),
        (scan, tiny_segmenter, ["--min_score", "2"], "from 0 to 1, got 2.0"),
        (scan, tiny_segmenter, ["--min_score", "1"], "expected a label at some points, got none in any scan"),
        (scan, tiny_segmenter, ["--candidate_labels", "tuk-tuk"], "tuk-tuk"),
        (scan, tmp_path / "nowhere/at/all", [], "there is no such folder"),
        (scan, tmp_path, [], "got one without config.json"),
    ]:
        assert main(["segment", str(source), "--model_name_or_path", str(model), *folder, *options]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("uov-hf: ") and message in error


def test_without_a_terminal_there_are_no_progress_bars(tiny_segmenter, scan, tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("a.npy", "b.npy"):
        (tmp_path / "scans" / name).write_bytes(scan.read_bytes())
    done = run_command("segment", tmp_path / "scans", "--model_name_or_path", tiny_segmenter, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("300 points") == 2
    assert "%|" not in done.stderr and "it/s" not in done.stderr


def test_labels_are_shown_as_classes_of_a_vocabulary_or_by_number(scan, tmp_path, capsys):
    page, label_file = tmp_path / "page.html", tmp_path / "scan.label"
    view = ["view", str(scan), "--output", str(page)]
    np.save(tmp_path / "own.npy", np.full(300, 2, np.uint8))
    assert main([*view, "--labels", str(tmp_path / "own.npy")]) == 0
    assert '"class 2"' in page.read_text(encoding="utf-8")
    view += ["--ground_truth", str(label_file)]
    (np.full(300, 40, np.uint32) | (7 << 16)).astype(np.uint32).tofile(label_file)  # instance 7 of road
    assert main(view) == 1 and "--vocabulary" in capsys.readouterr().err
    view += ["--vocabulary", "semantic_kitti"]
    assert main(view) == 0 and '"road"' in page.read_text(encoding="utf-8")
    np.zeros(299, np.uint32).tofile(label_file)
    assert main(view) == 1
    assert "scan.label: expected a value for each of the 300 points, got shape (299,)" in capsys.readouterr().err


def test_images_of_a_dataset_get_segments_words_and_an_overlay(tiny_street, tmp_path, capsys):
    options = ["label-images", "--dataset", "nuscenes", "--data_dir", str(tiny_street), "--split", "all"]
    assert main([*options, "--teacher", "synthetic", "--max_frames", "1", "--output_dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" segments: ") == 6
    path = next(tmp_path.glob("*CAM_FRONT.json"))
    segments = json.loads(path.read_text())["segments"]
    ids = np.asarray(Image.open(path.with_suffix(".png")))
    assert ids.shape == (64, 112)
    assert {segment["id"]: segment["num_pixels"] for segment in segments} == {
        int(value): int(np.sum(ids == value)) for value in np.unique(ids) if value
    }
    assert {segment["class"] for segment in segments} <= {*load_vocabulary("nuscenes").class_names, "(ignored)"}
    assert Image.open(path.with_suffix(".overlay.png")).width >= 112


def test_a_split_without_images_is_refused(tiny_street, tmp_path, capsys):
    options = ["label-images", "--dataset", "nuscenes", "--data_dir", str(tiny_street), "--teacher", "synthetic"]
    assert main([*options, "--split", "test[:0]", "--output_dir", str(tmp_path)]) == 1
    assert "expected images to label, got none in 0 frames of the split" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "all"])
def test_a_count_is_at_least_1(capsys, count):
    with pytest.raises(SystemExit) as end:
        main(["label-images", "--dataset", "nuscenes", "--max_frames", count])
    assert end.value.code == 2
    assert f"argument --max_frames: expected a whole number of at least 1, got '{count}'" in capsys.readouterr().err


def test_images_of_a_folder_are_labelled_in_words(clip_folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.effect_noise((60, 40), 90).save(tmp_path / "photos" / "a.b.png")
    options = ["label-images", str(tmp_path / "photos"), "--teacher_model_name_or_path", str(clip_folder)]
    assert main([*options, "--words", "car, road", "--output_dir", str(tmp_path / "results")]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["a.b.json", "a.b.overlay.png", "a.b.png"]
    written = json.loads((tmp_path / "results" / "a.b.json").read_text())
    assert written["segments"] and {segment["word"] for segment in written["segments"]} <= {"car", "road"}
    capsys.readouterr()
    (tmp_path / "photos" / "note.jpg").write_text("no image")
    assert main([*options, "--words", "car", "--output_dir", str(tmp_path / "results")]) == 1
    assert "note.jpg" in capsys.readouterr().err


def test_a_card_is_printed_and_rendered_anew(tiny_segmenter, tmp_path, capsys):
    folder = shutil.copytree(tiny_segmenter, tmp_path / "copy")
    (folder / "README.md").unlink(missing_ok=True)
    assert main(["card", str(folder)]) == 1
    assert str(folder) in capsys.readouterr().err
    assert main(["card", str(folder), "--render"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("---\n") and printed.rstrip() == (folder / "README.md").read_text().rstrip()
    assert main(["card", str(tmp_path), "--render"]) == 1
    assert "config.json" in capsys.readouterr().err


def test_a_scan_goes_to_rerun(scan, tmp_path, capsys):
    pytest.importorskip("rerun", reason="rerun is not installed: pip install 'uov-hf[rerun]'")
    recording = tmp_path / "scan.rrd"
    assert main(["view", str(scan), "--viewer", "rerun", "--output", str(recording)]) == 0
    assert f"{recording}: 300 points" in capsys.readouterr().out
    assert recording.read_bytes().startswith(b"RRF")


def test_a_missing_library_of_a_file_format_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plyfile", None)
    path = tmp_path / "scan.ply"
    path.write_text("ply\n")
    assert main(["view", str(path), "--output", str(tmp_path / "page.html")]) == 1
    assert "scan.ply: .ply files are read by a library that is not installed: pip install" in capsys.readouterr().err


def test_labelled_images_are_never_overwritten_by_results(tmp_path, capsys):
    photos = [tmp_path / "left" / "a.png", tmp_path / "right" / "a.png", tmp_path / "both" / "b.png"]
    photos += [tmp_path / "both" / "b.jpg"]
    for path in photos:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(path)
    before = [path.read_bytes() for path in photos]
    for sources, folder, message in [
        (["left"], "left", "a.png: a result would overwrite this image"),
        (["left", "right"], "out", "a.png: the results of "),
        (["both"], "out", "b.png: the results of "),
    ]:
        options = [*(str(tmp_path / source) for source in sources), "--output_dir", str(tmp_path / folder)]
        assert main(["label-images", *options, "--words", "car"]) == 1
        assert message in capsys.readouterr().err
    assert [path.read_bytes() for path in photos] == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("starts", [True, False])
def test_if_no_browser_starts_the_address_of_the_page_is_printed(starts, scan, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or starts)
    page = tmp_path / "page.html"
    assert main(["view", str(scan), "--output", str(page), "--open"]) == 0
    assert opened == [page.as_uri()]
    assert (f"open {page.as_uri()}" in capsys.readouterr().out) is not starts


@pytest.mark.parametrize(
    "color, options, message",
    [
        ([300, 0, 0], [], "classes.json: expected `classes`, each with name and color"),
        (["red", 0, 0], [], "classes.json: expected `classes`, each with name and color"),
        ([255, 0, 0], ["--viewer", "rerun"], "page.html: with --viewer rerun it must end in .rrd"),
    ],
)
def test_an_invalid_file_of_view_is_named(color, options, message, scan, tmp_path, capsys):
    classes, page = tmp_path / "classes.json", tmp_path / "page.html"
    classes.write_text(json.dumps({"classes": [{"name": "car", "color": color}]}))
    assert main(["view", str(scan), "--classes", str(classes), "--output", str(page), *options]) == 1
    assert message in capsys.readouterr().err
