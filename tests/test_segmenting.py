"""Segmenting files: scans in, a folder of labels and pictures out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import room_for
from PIL import Image

from uov_hf.point_files import read_cloud
from uov_hf.results import read_labels
from uov_hf.segmenting import (
    class_colors,
    embed_pictures_for,
    find_scans,
    load_segmenter,
    read_origins,
    read_pictures,
    segment_file,
    segment_files,
)
from uov_hf.teachers import embed_pictures
from uov_hf.vocabulary import load_vocabulary
from uov_hf.written_together import only_writer
from uov_hf_cli.__main__ import main


def write_scan(path, num_points=300, seed=0):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-9, 9, (num_points, 3)), rng.integers(0, 256, num_points)])
    points.astype(np.float32).tofile(path)
    return path


@pytest.fixture(scope="module")
def segmenter(tiny_segmenter):
    return load_segmenter(tiny_segmenter, device="cpu")


def test_the_command_writes_labels_and_pictures_of_a_scan(segmenter, tiny_segmenter, tmp_path, capsys):
    scan, folder = write_scan(tmp_path / "scan.bin"), tmp_path / "out"
    options = ["--candidate_labels", "tree, car", "--min_score", "0.5", "--refine", "afi", "--device", "cpu"]
    program = ["segment", "--model_name_or_path", str(tiny_segmenter), str(scan), "--output_dir", str(folder)]
    assert main([*program, *options]) == 0
    expected = segmenter(str(scan), "tree, car", threshold=0.5, refine="afi")
    labels, scores = np.load(folder / "labels.npy"), np.load(folder / "scores.npy")
    np.testing.assert_array_equal(labels, expected["segmentation"])
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-6)
    assert labels.dtype == np.uint8 and scores.dtype == np.float32
    about = json.loads((folder / "classes.json").read_text())
    assert [own["name"] for own in about["classes"]] == ["tree", "car"]
    assert [own["num_points"] for own in about["classes"]] == [int((labels == row).sum()) for row in (0, 1)]
    assert (folder / "birds_eye_view.png").read_bytes().startswith(b"\x89PNG")
    assert "scan.bin: 300 points" in (folder / "viewer.html").read_text()
    printed = capsys.readouterr().out
    assert "scan.bin: 300 points" in printed and str(folder / "viewer.html") in printed


def test_several_scans_get_a_folder_each(segmenter, tmp_path):
    for name in ("00/000000.bin", "00/000001.bin", "01/000000.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_scan(tmp_path / name)
    (tmp_path / "00" / "calib.txt").write_text("no scan")
    results = list(segment_files(segmenter, [tmp_path / "00", tmp_path / "01"], tmp_path / "out", viewer=False))
    names = ["00/000000", "00/000001", "01/000000"]
    assert [result.folder for result in results] == [tmp_path / "out" / name for name in names]
    for result in results:
        np.testing.assert_array_equal(np.load(result.folder / "labels.npy"), result.labels)
        assert not (result.folder / "viewer.html").exists()


@pytest.mark.parametrize(
    "names, folders",
    [
        (["a.bin", "a.pcd.bin"], ["a.bin", "a.pcd.bin"]),  # they differ in their suffix only
        (
            ["...bin", ".a.bin", "1700.01.bin", "1701.02.bin", "b.c.pcd.bin"],
            ["...bin", ".a", "1700.01", "1701.02", "b.c"],
        ),
    ],
)
def test_a_folder_has_the_name_of_its_scan_without_the_suffix_where_it_is_unique(segmenter, names, folders, tmp_path):
    for name in names:
        write_scan(tmp_path / name)
    scans = [tmp_path / name for name in names]
    results = list(segment_files(segmenter, scans, tmp_path / "out", viewer=False))
    assert {result.scan.name: result.folder.name for result in results} == dict(zip(names, folders, strict=True))
    assert all(len(np.load(result.folder / "labels.npy")) == len(result.labels) for result in results)


def test_a_scan_without_intensity_and_one_of_five_columns_are_segmented(tiny_segmenter, segmenter, tmp_path):
    points = np.fromfile(write_scan(tmp_path / "scan.bin"), np.float32).reshape(-1, 4)
    np.save(tmp_path / "bare.npy", points[:, :3])
    np.column_stack([points, np.arange(300) % 32]).astype(np.float32).tofile(tmp_path / "five.pcd.bin")
    bare = segment_file(tiny_segmenter, tmp_path / "bare.npy", tmp_path / "bare", device="cpu")
    assert bare.points.shape == (300, 3) and bare.class_names == ["car", "road", "tree"]
    five = segment_file(segmenter, tmp_path / "five.pcd.bin", tmp_path / "five", viewer=False)
    np.testing.assert_array_equal(five.labels, segmenter(points)["segmentation"])


def test_an_error_names_the_file(segmenter, tmp_path):
    for name, value, message in (
        ("far", 1e7, "`points` must lie within"),
        ("nan", np.nan, "expected a scan with"),
    ):
        points = np.full((400, 4), np.nan if name == "nan" else 1, np.float32)
        points[7] = value
        np.save(tmp_path / f"{name}.npy", points)
        with pytest.raises(ValueError, match=f"{name}.npy: {message}"):
            segment_file(segmenter, tmp_path / f"{name}.npy", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected files that end in one of .bin"):
        find_scans([tmp_path / "empty"])
    assert not (tmp_path / "out").exists()


def test_a_broken_scan_of_many_can_be_skipped(segmenter, tiny_segmenter, tmp_path, capsys):
    for name in "ac":
        write_scan(tmp_path / f"{name}.bin")
    (tmp_path / "b.bin").write_bytes(b"x" * 13)
    (tmp_path / "._a.bin").write_bytes(b"a leftover of macOS")
    with pytest.raises(ValueError, match="b.bin: expected .*`--on_error skip` goes on with the other scans"):
        list(segment_files(segmenter, [tmp_path], tmp_path / "raised", viewer=False))
    program = ["segment", "--model_name_or_path", str(tiny_segmenter), "--device", "cpu", "--on_error", "skip"]
    assert main([*program, str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 0
    assert [(tmp_path / "out" / name / "labels.npy").is_file() for name in "abc"] == [True, False, True]
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'b.bin'}: skipped. " in printed and f"1 of 3 scans skipped: {tmp_path / 'b.bin'}" in printed
    assert main([*program, str(tmp_path / "b.bin"), "--output_dir", str(tmp_path / "none")]) == 1
    assert "expected at least one scan that can be segmented, got none among 1" in capsys.readouterr().err


def test_the_columns_of_a_file_can_be_given(segmenter, tiny_segmenter, tmp_path, capsys):
    """Points in random order, whose layout cannot be measured."""
    points = np.fromfile(write_scan(tmp_path / "scan.bin"), np.float32).reshape(-1, 4)
    np.column_stack([points, points[:, :2]]).tofile(tmp_path / "six.bin")
    expected = segmenter(points)["segmentation"]
    np.testing.assert_array_equal(segmenter(str(tmp_path / "six.bin"), num_columns=6)["segmentation"], expected)
    own = {"points": str(tmp_path / "six.bin"), "num_columns": 6}
    np.testing.assert_array_equal(segmenter(own)["segmentation"], expected)
    options = ["--num_columns", "6", "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
    assert main(["segment", str(tmp_path / "six.bin"), *options, "--output_dir", str(tmp_path / "out")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), expected)
    page = ["--output", str(tmp_path / "page.html")]
    assert main(["view", str(tmp_path / "six.bin"), "--num_columns", "6", *page]) == 0
    assert "page.html: 300 points" in capsys.readouterr().out


def test_what_cannot_be_loaded_is_named(tiny_segmenter, tmp_path, monkeypatch):
    for place in (tmp_path / "absent", "out/absent", "absent"):
        with pytest.raises(OSError, match=f"{place}: there is no such folder, ") as error:
            load_segmenter(place)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="such as float32 or bfloat16, got 'float17'"):
        load_segmenter(tiny_segmenter, dtype="float17")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="`device` is 'cuda:0', but torch finds no GPU"):
        load_segmenter(tiny_segmenter, device="cuda:0")
    assert str(load_segmenter(tiny_segmenter, dtype="bfloat16").model.dtype) == "torch.bfloat16"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda content: content.replace(b'"depths": [', b'"depths": [7, ')),
        ("processor_config.json", lambda content: content.replace(b'"voxel_size": [', b'"voxel_size": [7, ')),
        ("processor_config.json", lambda content: content[:-9] + b"\xe4" + content[-9:]),
        ("tokenizer.json", lambda content: b"[" + content + b"]"),
        ("model.safetensors", lambda content: content[:-4]),
    ],
)
def test_a_damaged_checkpoint_is_named(tiny_segmenter, tmp_path, name, damage):
    folder = shutil.copytree(tiny_segmenter, tmp_path / "damaged")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(content))
    assert (folder / name).read_bytes() != content
    with pytest.raises((ValueError, OSError), match=f"^{folder}(/{name})?: "):
        load_segmenter(folder)


def stop(error):
    def raise_it(*arguments, **options):
        raise error

    return raise_it


def test_an_error_that_is_no_damage_of_the_checkpoint_keeps_its_whole_text(tiny_segmenter, monkeypatch):
    no_hub = "We couldn't connect to the Hub.\nCheck your internet connection."
    monkeypatch.setattr("uov_hf.segmenting.pipeline", stop(OSError(no_hub)))
    with pytest.raises(OSError, match=r"loaded: We couldn't connect to the Hub\. Check your internet connection\.$"):
        load_segmenter(tiny_segmenter)
    monkeypatch.setattr("uov_hf.segmenting.pipeline", stop(torch.OutOfMemoryError("out of memory\nSee the manual")))
    with pytest.raises(torch.OutOfMemoryError):
        load_segmenter(tiny_segmenter)


def test_messages_name_the_final_path_of_a_result(segmenter, tmp_path, monkeypatch, caplog):
    pytest.importorskip("laspy")
    scan, path = write_scan(tmp_path / "scan.bin"), tmp_path / "out" / "scan.las"
    points = np.fromfile(scan, np.float32)
    points[:3] = np.nan
    points.tofile(scan)
    segment_file(segmenter, scan, path.parent, formats=["las"])
    assert f"{path}: without 1 points that are not finite" in caplog.text
    monkeypatch.setattr("uov_hf.results.las_results.MAX_DISTANCE", 1)
    with pytest.raises(ValueError, match=f"^{path}: `points` must lie within 1 m .* leave out such points.$"):
        segment_file(segmenter, scan, path.parent, formats=["las"])


def test_a_name_of_a_result_outside_the_folder_of_results_is_refused_before_the_network_runs(
    segmenter, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    scan = write_scan(tmp_path / "scan.bin")
    segment_file(segmenter, scan, "out/scan", formats=["label"], result_name=tmp_path / "out" / "scan")
    assert (tmp_path / "out" / "scan.label").is_file() and (tmp_path / "out" / "scan" / "classes.json").is_file()
    monkeypatch.setattr(type(segmenter), "__call__", stop(RuntimeError("the network has run")))
    with pytest.raises(ValueError, match="`result_name` must be a name in the folder out/scan, .* got elsewhere/scan"):
        segment_file(segmenter, scan, "out/scan", formats=["label"], result_name="elsewhere/scan")


def test_a_class_may_be_given_by_pictures(segmenter, tiny_segmenter, clip_folder, tmp_path):
    scan, teacher = write_scan(tmp_path / "scan.bin"), str(clip_folder)
    Image.effect_noise((80, 80), 90).save(tmp_path / "yak.png")
    program = ["segment", "--model_name_or_path", tiny_segmenter, scan, "--output_dir", tmp_path / "out"]
    program += ["--candidate_labels", "car", "--picture", f"yak={tmp_path / 'yak.png'}"]
    assert main([*map(str, program), "--teacher_model_name_or_path", teacher, "--device", "cpu"]) == 0
    about = json.loads((tmp_path / "out" / "classes.json").read_text())
    embeds = embed_pictures({"yak": [tmp_path / "yak.png"]}, teacher)
    expected = segmenter(str(scan), ["car"], candidate_embeds=embeds)
    assert [own["name"] for own in about["classes"]] == ["car", "yak"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), expected["segmentation"])
    with pytest.raises(ValueError, match="no record of the teacher that embeds the pictures"):
        embed_pictures_for(segmenter, {"yak": [tmp_path / "yak.png"]})


def test_pictures_are_read_from_words_and_from_json(tmp_path):
    (tmp_path / "words.json").write_text('{"cow": ["c.jpg"]}')
    pictures = read_pictures(["tuk-tuk=a.jpg, b.jpg"], tmp_path / "words.json")
    assert {name: [str(path) for path in own] for name, own in pictures.items()} == {
        "cow": [str(tmp_path / "c.jpg")],
        "tuk-tuk": ["a.jpg", "b.jpg"],
    }
    for wrong in ("tuk-tuk", "=a.jpg", "tuk-tuk=a.jpg,"):
        with pytest.raises(ValueError, match="is given as tuk-tuk=a.jpg,b.jpg"):
            read_pictures([wrong])
    with pytest.raises(ValueError, match="must be given once"):
        read_pictures(["cow=a.jpg"], tmp_path / "words.json")
    (tmp_path / "words.json").write_text('["c.jpg"]')
    with pytest.raises(ValueError, match="words.json: expected JSON as"):
        read_pictures([], tmp_path / "words.json")


def test_words_of_a_vocabulary_have_its_colours_and_no_two_are_alike():
    nuscenes = load_vocabulary("nuscenes")
    np.testing.assert_array_equal(class_colors(nuscenes.class_names), nuscenes.colors)
    colors = class_colors(["car", "sedan", "unicorn", "driveable surface", "yeti"])
    np.testing.assert_array_equal(colors[[0, 3]], nuscenes.colors[[3, 10]])
    assert len({tuple(color) for color in colors.tolist()}) == 5


def test_results_of_scans_elsewhere_stay_in_the_output_folder(segmenter, tmp_path, monkeypatch):
    for folder in ("there", "run", "run/here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "run")
    scans = [write_scan(Path("..") / "there" / "a.bin"), write_scan(Path("here") / "a.bin")]
    results = list(segment_files(segmenter, scans, "out", viewer=False))
    assert [result.folder for result in results] == [Path("out/there/a"), Path("out/run/here/a")]
    assert all((tmp_path / "run" / result.folder / "labels.npy").is_file() for result in results)


def test_a_folder_of_results_has_no_old_viewer_and_no_new_scans(segmenter, tmp_path):
    scan, folder = write_scan(tmp_path / "scan.bin"), tmp_path / "out"
    segment_file(segmenter, scan, folder)
    assert (folder / "viewer.html").is_file()
    segment_file(segmenter, scan, folder, viewer=False, formats=["label"])
    assert not any((folder / name).exists() for name in ("viewer.html", "labels.npy", "scores.npy"))
    segment_file(segmenter, scan, folder, viewer=False)
    with pytest.raises(ValueError, match="out: expected files that end in one of .bin"):
        find_scans([folder])
    shutil.copy(scan, folder / "scan.bin")
    assert find_scans([folder]) == [folder / "scan.bin"]
    (folder / "classes.json").unlink()  # without it they count as scans
    assert [path.name for path in find_scans([folder])] == ["labels.npy", "scan.bin", "scores.npy"]


def test_results_of_several_scans_are_files_beside_their_folders(tiny_segmenter, tmp_path, capsys):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.fromfile(write_scan(tmp_path / "scan"), np.float32).reshape(-1, 4))
    options = ["--model_name_or_path", str(tiny_segmenter), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["segment", str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--format", "label, ply", *options]) == 0
    assert f"result: {tmp_path / 'out' / 'b.ply'}" in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a", "a.label", "a.ply", "b", "b.label", "b.ply"]
    assert not (tmp_path / "out" / "a" / "labels.npy").exists()
    assert main(["segment", str(tmp_path / "a.npy"), *options, "--format", "npy,label", "--tta", "2"]) == 0
    labels = np.load(tmp_path / "out" / "labels.npy")
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.label").labels, labels)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [own["label_id"] for own in classes["classes"]] == [1, 2, 3] and classes["origin"] == [0, 0, 0]
    assert main(["segment", str(tmp_path / "a.npy"), *options, "--format", "e57"]) == 1
    assert "`formats` must be among npy, label" in capsys.readouterr().err


def test_a_map_is_segmented_in_tiles_in_its_own_coordinates(segmenter, tmp_path):
    points = np.fromfile(write_scan(tmp_path / "scan"), np.float32).reshape(-1, 4).astype(np.float64)
    utm = np.array([512_345.0, 5_412_345.0, 210.0])
    np.save(tmp_path / "map.npy", points + [*utm, 0])
    (tmp_path / "origins.txt").write_text("512345, 5412345, 210\n# the end\n")
    origins = read_origins(tmp_path / "origins.txt")
    result = segment_file(segmenter, tmp_path / "map.npy", tmp_path / "out", origins=origins, formats=["ply"])
    expected = segmenter(points.astype(np.float32))
    # Beside the origin of the file, points are rounded once more.
    assert np.mean(result.labels == expected["segmentation"]) > 0.95
    about = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert np.abs(np.array(about["origin"]) - utm).max() < 9
    assert np.abs(read_cloud(tmp_path / "out" / "map.ply").file_points[:, :3] - points[:, :3] - utm).max() < 1e-3
    assert '"origin": [5123' in (tmp_path / "out" / "viewer.html").read_text()
    gridded = segment_file(segmenter, tmp_path / "map.npy", tmp_path / "grid", viewer=False)
    assert (gridded.labels != 255).all()
    for content in ("a b c", ""):
        (tmp_path / "origins.txt").write_text(content)
        with pytest.raises(ValueError, match="origins.txt: expected rows of x y"):
            read_origins(tmp_path / "origins.txt")


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("num_bytes", [0, 500, 2_000, 8_000])
def test_on_a_full_disk_the_results_of_an_earlier_run_stay(segmenter, tmp_path, num_bytes):
    scan, folder = write_scan(tmp_path / "scan.bin"), tmp_path / "out"
    segment_file(segmenter, scan, folder, formats=["npy", "label"])
    before = bytes_of(folder)
    options = {"candidate_labels": "tree, car", "formats": ["npy", "label", "pcd"]}
    with room_for(num_bytes), pytest.raises(OSError, match=f"{folder}: could not be written: .* are as before"):
        segment_file(segmenter, scan, folder, **options)
    assert bytes_of(folder) == before
    segment_file(segmenter, scan, folder, **options)
    assert {path.name for path in bytes_of(folder).keys() - before.keys()} == {"scan.pcd"}


def test_a_second_run_into_a_folder_is_refused_in_one_line(segmenter, tiny_segmenter, tmp_path, capsys):
    scan, folder = write_scan(tmp_path / "scan.bin"), tmp_path / "out"
    with only_writer(folder):
        program = ["segment", str(scan), "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
        assert main([*program, "--output_dir", str(folder)]) == 1
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith(f"uov-hf: {folder} is being written by another run.")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_scan_that_vanishes_after_the_folder_was_listed_is_named(segmenter, tmp_path, on_error):
    (tmp_path / "scans").mkdir()
    for name in ("0.bin", "1.bin", "2.bin"):
        write_scan(tmp_path / "scans" / name)
    results = segment_files(segmenter, [tmp_path / "scans"], tmp_path / "out", on_error=on_error)
    next(results)
    (tmp_path / "scans" / "1.bin").unlink()
    if on_error == "raise":
        with pytest.raises((OSError, ValueError), match=r"1\.bin"):
            next(results)
        return
    skipped, last = results
    assert "1.bin" in skipped.error and last.scan.name == "2.bin"
