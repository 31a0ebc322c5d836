"""The check by kills: it finds what is wrong with the files of a killed command, and a real command passes it."""

import shutil
from types import SimpleNamespace

import kills
import pytest
from kill_jobs import JOBS, Job
from kill_runs import Runs, Whole

from uov_hf.training.interruption import RESUME_STATUS
from uov_hf.training.tracking import LOG_FILE


JOB = Job("name", "words", 1, {"out": "source"}, last="last.json")
BEFORE = {"last.json": "1", "weights": "1", "deep/other": "1"}
AFTER = dict.fromkeys(BEFORE, "2") | {LOG_FILE: '{"step": 1, "num_points": 5, "seconds": 1.0}\n'}


def write(folder, contents):
    for name, text in contents.items():
        path = folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def find(tmp_path):
    """`find(contents)`: what is half-written in a folder with these files, after a kill."""
    runs = SimpleNamespace(input_of=lambda job, name: write(tmp_path / "source", BEFORE) / "out")
    whole = Whole(write(tmp_path / "whole", AFTER), 1.0, 10)

    def find(contents):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return kills.half_written(runs, JOB, whole, write(tmp_path / "run", contents))

    return find


def test_files_of_before_or_after_a_command_and_temporary_ones_are_whole(find):
    assert find(BEFORE) == find(AFTER) == []
    assert find(AFTER | {"weights.1.tmp": "half", ".saving-1/weights": "half", ".checkpoint-2.partial/a": ""}) == []
    without = {name: text for name, text in BEFORE.items() if name != "last.json"}
    assert find(without | {"weights": "2"}) == []  # unfinished, and to be seen as such


def test_a_half_written_file_and_a_mixture_of_two_runs_are_found(find):
    assert find(AFTER | {"deep/other": ""}) == ["out/deep/other", "out/.: files of two runs"]
    assert find(AFTER | {"weights": "1"}) == ["out/.: files of two runs"]
    assert find({"last.json": "2"}) == ["out/.: files of two runs"]


def test_results_that_differ_and_files_that_are_left_are_found(tmp_path):
    whole, run = write(tmp_path / "whole", AFTER), write(tmp_path / "run", AFTER)
    (run / "out" / LOG_FILE).write_text(AFTER[LOG_FILE].replace("1.0", "9.0"))  # another time
    assert not any(kills.compare(JOB, whole, run).values())
    (run / "out" / LOG_FILE).write_text(AFTER[LOG_FILE] * 2)
    (run / "out" / "weights").unlink()
    write(run, {"a.tmp": "", ".unfinished/lock.json": "", "more": ""})
    assert kills.compare(JOB, whole, run) == {
        "other_results": ["more", LOG_FILE, "weights"],
        "files_left": [".unfinished", "a.tmp"],
        "lost_or_double_frames": ["step 1: 5 points"],
    }


def test_moments_and_signals_take_turns():
    counts, seen = kills.Counts(), []
    for _ in range(6):
        seen.append(counts.next_kill(SimpleNamespace(random=lambda: 0.0)))
        counts.add(seen[-1], RESUME_STATUS)
    assert len(set(seen)) == 6 and (counts.kills, counts.SIGKILL, counts.SIGTERM, counts.ended_with_75) == (6, 3, 3, 6)


def test_there_are_two_hundred_kills_over_every_command():
    assert sum(job.num_kills for job in JOBS) >= 200 and min(job.num_kills for job in JOBS) > 0


@pytest.mark.slow
def test_a_label_set_that_is_killed_has_the_bytes_of_one_that_is_not(tmp_path):
    runs, job = Runs(tmp_path), next(job for job in JOBS if job.name == "generate_label_set")
    whole, counts = runs.run_whole(job), kills.Counts()
    while counts.kills < 3:
        kills.continue_to_the_end(runs, job, whole, counts, most_kills=2)
    assert counts.half_written_files == counts.other_results == counts.lost_or_double_frames == 0
    assert counts.files_left == counts.processes_left == 0
