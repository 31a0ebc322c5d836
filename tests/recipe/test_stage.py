"""A stage: skipped where its result is there, its log and its failure, and the end of what it has started."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from uov_hf.recipe import processes
from uov_hf.recipe import stage as stages
from uov_hf.recipe.processes import RUN_VARIABLE, kill_leftovers, run_program
from uov_hf.recipe.programs import Launch, accelerate_launch, script_arguments, scripts_folder
from uov_hf.recipe.stage import RECORD, Stage, flags


SCRIPT = """
import sys
from pathlib import Path

Path("ran").touch()
print("\\rstep 1\\rstep 2 of 2")
print("last words", file=sys.stderr)
if "--launches" not in sys.argv:
    sys.exit(int(sys.argv[-1]) if "--status" in sys.argv else "--fails" in sys.argv)
"""


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # also one that has ended and is not yet waited for
        return ""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(learning_rate=1)`: run the stage in the folder of a user, and return whether its program ran."""
    script, elsewhere = tmp_path / "distill.py", tmp_path / "elsewhere"
    script.write_text(SCRIPT)
    elsewhere.mkdir()
    monkeypatch.setattr(stages, "script_path", lambda name: tmp_path / f"{name}.py")
    monkeypatch.chdir(elsewhere)

    def run_stage(inputs=None, **settings) -> bool:
        Path("ran").unlink(missing_ok=True)
        Stage("distill", settings, tmp_path / "out", inputs=inputs or {}).run(Launch(), tmp_path / "log.txt")
        return Path("ran").is_file()

    return run_stage


def test_a_stage_is_repeated_unless_its_folder_has_its_result(run, tmp_path):
    assert run(seed=0) and not run(seed=0)
    assert run(seed=1) and not run(seed=1)
    assert run(seed=1, inputs={"frames": "a"}) and not run(seed=1, inputs={"frames": "a"})
    assert run(seed=1, inputs={"frames": "b"})
    for unreadable in ("{", '{"words": []}'):
        (tmp_path / "out" / RECORD).write_text(unreadable)
        assert run(seed=1, inputs={"frames": "b"})


def test_a_stage_that_failed_has_no_result(run, tmp_path):
    assert run()
    with pytest.raises(ChildProcessError, match="(?s)The stage distill ended with status 1. .*log.txt:\n.*last words"):
        run(fails=True)  # it may have replaced the result
    assert run()


def test_an_interrupted_stage_has_its_settings_and_no_result(run, tmp_path):
    with pytest.raises(ChildProcessError):
        run(fails=True, seed=0, inputs={"frames": "a"})
    same, other = (
        Stage("distill", {"fails": True, "seed": seed}, tmp_path / "out", {}, {"frames": "a"}) for seed in (0, 1)
    )
    assert not same.changes and not same.is_done and same.cost is None
    assert other.changes == ["seed = 0, now 1"]


def test_the_log_has_the_output_of_every_run_and_the_last_state_of_a_bar(run, tmp_path):
    run(seed=0), run(seed=1)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sorted(lines) == ["last words", "last words", "step 2 of 2", "step 2 of 2"]


def test_a_failure_ends_with_the_words_of_the_program_without_the_traceback_of_its_launcher(run, tmp_path):
    launched = "import subprocess; subprocess.run(['false'], check=True)"
    with (tmp_path / "distill.py").open("a") as script:
        script.write(f"\n{launched}\n")
    with pytest.raises(ChildProcessError, match="ended with status 1") as failure:
        run(launches=True)
    assert str(failure.value).endswith("last words")


def test_changes_name_settings_and_inputs(run, tmp_path):
    run(seed=0, inputs={"frames": "a"})
    changed = Stage("distill", {"seed": 1, "preset": "tiny"}, tmp_path / "out", inputs={"frames": "b"})
    assert changed.changes == ["seed = 0, now 1", "preset = None, now tiny", "frames changed"]


def test_settings_are_flags():
    settings = {"voxel_size": [0.2, 0.2], "mix_sectors": True, "update_card": False, "split": None, "cameras": []}
    assert flags(settings) == ["--voxel_size", "0.2", "0.2", "--mix_sectors", "--update_card", "False"]


SAVES = "lambda *_: (print('saved', flush=True), sys.exit(75))"


@pytest.mark.parametrize("handler, last, grace", [(SAVES, "saved", 600), ("signal.SIG_IGN", "", 0.1)])
def test_an_interrupted_program_may_save_and_leaves_no_process(tmp_path, monkeypatch, handler, last, grace):
    """Its own children end, too: a launcher has some. Those that do not end by SIGTERM are killed."""
    child = f"import signal, sys, time; signal.signal(signal.SIGTERM, {handler}); print(1, flush=True)"
    child += "; time.sleep(600)"  # after the first output: both processes have started then
    start = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])"
    program = [sys.executable, "-c", f"{start}; time.sleep(600)"]
    found, copy_output = [], processes._copy_output
    monkeypatch.setattr(processes, "GRACE", grace)

    def interrupt(output, log, show) -> None:
        if found:
            return copy_output(output, log, show)
        output.read(2)
        children = psutil.Process().children(recursive=True)  # and those of other tests in this process
        found.extend(one for one in children if "time.sleep(600)" in command_of(one))
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_copy_output", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_program(program, {}, tmp_path / "log.txt", show=False)
    assert len(found) == 2
    _, alive = psutil.wait_procs(found, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert (tmp_path / "log.txt").read_text().strip() == last


def test_an_interrupted_stage_ends_the_run_with_the_status_of_its_program(run):
    with pytest.raises(SystemExit) as end:
        run(status=75)
    assert end.value.code == 75


def test_processes_that_a_killed_run_left_are_killed_and_those_of_another_run_are_not(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    both = [
        subprocess.Popen(sleep, env=os.environ | {RUN_VARIABLE: str(tmp_path / name)}) for name in ("ours", "other")
    ]
    try:
        while any(RUN_VARIABLE not in psutil.Process(one.pid).environ() for one in both):
            time.sleep(0.01)
        assert kill_leftovers(tmp_path / "ours") == [both[0].pid]
        assert both[0].poll() is not None and both[1].poll() is None
    finally:
        for one in both:
            one.kill()
            one.wait()


def test_processes_of_a_launch_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    launches = [accelerate_launch(number) for number in (1, 2, 16)]
    assert [launch.environment["OMP_NUM_THREADS"] for launch in launches] == ["8", "4", "1"]
    assert ["--multi_gpu" in launch.words for launch in launches] == [False, True, True]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert accelerate_launch(2).environment["OMP_NUM_THREADS"] == "3"


def test_a_command_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch = Launch((sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"), {"A": "b c"})
    assert launch.command_line([str(tmp_path / "examples" / "distill.py"), "--data_dir", "my car"]) == (
        "A='b c' accelerate launch --num_processes 1 examples/distill.py --data_dir 'my car'"
    )


def test_the_arguments_of_a_script_are_found():
    assert scripts_folder().name in ("examples", "scripts")
    assert script_arguments("evaluate").__name__ == "EvaluationArguments"
