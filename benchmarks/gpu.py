"""Correctness, speed and memory of all engines and precisions on a GPU, and whole steps of pre-training.

    pip install 'uov-hf[cuda,triton]'
    python benchmarks/gpu.py --minutes 8 --output out/gpu.json

First each installed engine is compared with float64, on ordinary and on odd inputs. Then the network and whole steps
of pre-training are timed, the most important first, until the time is over; the report ends with the jobs left out.
spconv_triton comes last: it tunes its kernels for minutes at first use and keeps them on the disk, so a second run
measures more. Each timed round has another scan. The exit status is 1 if an engine computed something wrong.

Each precision has its tolerances (`gpu_checks.TOLERANCES`). Shares are those of the speed that the card reaches in the
same precision with one large product (products), and in one large copy (memory). The work is counted: all products,
and every layer's inputs, weights and outputs once; a training round counts three times a forward pass.

`--device cpu` runs the same program on small inputs, as a test of the program.
"""

import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gpu_checks
import torch
from common import make_parser
from gpu_report import to_markdown
from gpu_speed import EFFORTS, Effort, NetworkTimer, measure_card, measure_pretraining
from scans import SENSORS, find_scans, make_scans


ENGINES = ("torch", *gpu_checks.PACKAGES)
JOBS_IN_TIME = 12  # no job takes more than this part of the time
SECONDS_TO_CLOSE = 5


@dataclass(frozen=True)
class Job:
    """One check or measurement; `kind` is "card", "check", "network" or "pretraining"."""

    kind: str
    engine: str
    precision: str
    sensor: str | None = None
    batch_size: int | None = None
    training: bool | None = None


def main():
    parser = make_parser(__doc__, with_data_dir=True)
    parser.add_argument("--device", choices=EFFORTS, default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="the program ends before")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("`torch.cuda.is_available()` is False on this machine; `--device cpu` tests the program itself.")
    effort, end = EFFORTS[args.device], time.monotonic() + 60 * args.minutes
    missing = {engine: why for engine in ENGINES if (why := gpu_checks.why_not_installed(engine))}
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    machine = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    with TemporaryDirectory() as folder:
        scans = prepare(Path(folder), args.data_dir, effort)
        runner = JobRunner(Path(folder), args.device, end, 60 * args.minutes / JOBS_IN_TIME)
        rows = [runner.do(job) for job in check_jobs([name for name in ENGINES if name not in missing], args.device)]
        right = [(row["engine"], row["precision"]) for row in rows if gpu_checks.SCAN in row.get("passed", ())]
        rows += [runner.do(job) for job in speed_jobs(right, effort)]
        runner.close()
    results = {"machine": machine, "scans": scans, "missing": missing, "results": rows}
    print(to_markdown(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2))
    if any(row.get("failed") for row in rows):
        raise SystemExit("Something failed: see the tables.")


def prepare(folder: Path, data_dir: Path, effort: Effort) -> dict[str, str]:
    """Write the inputs of all jobs; return whether the scans of each sensor are real or synthetic."""
    points, voxels = {}, {}
    for name, sensor in SENSORS.items():
        points[name] = [scan[:: effort.every_nth_point] for scan in make_scans(sensor, data_dir, effort.num_scans)]
        batches = [sensor.extractor()(scan, intensity_max=255.0) for scan in points[name]]
        voxels[name] = [(batch["voxel_coords"], batch["voxel_features"]) for batch in batches]
    first = next(iter(SENSORS))
    torch.save({"voxels": voxels, "points": points[first]}, folder / "scans.pt")
    torch.save(gpu_checks.make_cases(effort.preset, voxels[first][0]), folder / "cases.pt")
    return {name: "real" if find_scans(sensor, data_dir) else "synthetic" for name, sensor in SENSORS.items()}


def check_jobs(engines: list[str], device: str) -> list[Job]:
    """Speed of the card, then every engine in every precision; TF32 is of CUDA only."""
    precisions = [name for name in gpu_checks.DTYPES if device == "cuda" or name != "tf32"]
    card = [Job("card", "torch", precision) for precision in precisions]
    return card + [Job("check", engine, precision) for engine in (*engines, "auto") for precision in precisions]


def speed_jobs(right: list[tuple[str, str]], effort: Effort) -> list[Job]:
    """What to measure, the most important first, of the engines and precisions that passed the check."""
    right = [pair for pair in right if pair[0] != "auto"]
    jobs = []
    for index, batch_size in enumerate(effort.batch_sizes):
        settings = [(sensor, batch_size, training) for sensor in SENSORS for training in (False, True)]
        jobs += [Job("network", *pair, *setting) for setting in settings for pair in right]
        if index == 0:
            jobs += [Job("pretraining", *pair, next(iter(SENSORS)), effort.batch_sizes[1], True) for pair in right]
    return sorted(jobs, key=lambda job: job.engine == "spconv_triton")


class JobRunner:
    """Runs jobs in processes of their own, which may hang, run out of memory or die without harm to the others.

    Float32 and TF32 have a process each (`gpu_checks.precision`).
    """

    def __init__(self, folder: Path, device: str, end: float, longest: float):
        self.folder, self.device, self.end, self.longest = folder, device, end, longest
        self.workers = {}

    def do(self, job: Job) -> dict:
        """The job with its result: measured, or `failed`, `refused`, `left_out` with the reason."""
        result = self._do(job)
        print(f"{time.strftime('%X')} {asdict(job)}: {result}", flush=True)
        return asdict(job) | result

    def _do(self, job: Job) -> dict:
        key = job.precision == "tf32"
        if key not in self.workers and self.left() > 0:
            self.workers[key] = start_worker(self.folder, self.device)
            self._wait(key, self.left())  # until it is ready: imports do not count for the job
        seconds = min(self.longest, self.left())
        if key not in self.workers or seconds <= 0:
            return {"left_out": "no time was left"}
        self.workers[key][1].send(job)
        return self._wait(key, seconds)

    def left(self) -> float:
        return self.end - time.monotonic() - SECONDS_TO_CLOSE

    def _wait(self, key: bool, seconds: float) -> dict:
        """The result of a process; one that dies or takes too long is removed."""
        process, connection = self.workers[key]
        try:
            if connection.poll(max(seconds, 0)):
                return connection.recv()
            reason = {"left_out": f"not done after {seconds:.0f} s"}
        except EOFError:
            process.join()
            reason = {"failed": {"the process": f"it died with status {process.exitcode}"}}
        self._remove(key)
        return reason

    def _remove(self, key: bool) -> None:
        process, _ = self.workers.pop(key)
        process.kill()
        process.join()

    def close(self) -> None:
        for key in list(self.workers):
            self._remove(key)


def start_worker(folder: Path, device: str):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, folder, device))
    process.start()
    theirs.close()  # otherwise the death of the process is not noticed
    return process, ours


def work(connection, folder: Path, device: str) -> None:
    """Send an empty result when ready, then the result of every job, until killed."""
    gpu_checks.disarm_spconv(device)
    worker = Worker(folder, device)
    connection.send({})
    while True:
        job = connection.recv()
        try:
            answer = getattr(worker, job.kind)(job)
        except torch.OutOfMemoryError:
            answer = {"left_out": "out of memory"}
        except Exception as error:  # an engine may raise anything
            reason = gpu_checks.one_line(error)
            answer = {"refused": reason} if gpu_checks.is_refusal(error) else {"failed": {job.kind: reason}}
        if device == "cuda":
            torch.cuda.empty_cache()
        connection.send(answer)


class Worker:
    """Runs jobs in this process, each by the method of its kind."""

    def __init__(self, folder: Path, device: str):
        self.folder, self.device, self.effort = folder, device, EFFORTS[device]
        self.scans = torch.load(folder / "scans.pt", weights_only=False)
        self.cases = self.timer = None

    def card(self, job: Job) -> dict:
        return measure_card(job.precision, self.device, self.effort)

    def check(self, job: Job) -> dict:
        self.cases = self.cases or torch.load(self.folder / "cases.pt", weights_only=False)
        return gpu_checks.check(self.cases, job.engine, job.precision, self.device)

    def network(self, job: Job) -> dict:
        self.cases = None  # they would count as memory of the network
        self.timer = self.timer or NetworkTimer(self.scans["voxels"], self.device, self.effort)
        return self.timer.measure(job.engine, job.precision, job.sensor, job.batch_size, job.training)

    def pretraining(self, job: Job) -> dict:
        self.cases = self.timer = None
        extractor, settings = SENSORS[job.sensor].extractor(), (job.engine, job.precision, job.batch_size)
        return measure_pretraining(self.scans["points"], extractor, *settings, self.device, self.effort)


if __name__ == "__main__":
    main()
