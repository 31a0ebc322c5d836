"""How often the calibration check finds a wrong camera, on scenes on which its constants were not chosen.

    python benchmarks/calibration.py [--pandaset_dir data/pandaset]

Every case is a camera of twelve frames of a synthetic street (two drives, 32 beams, 225 x 400 pixels) or of a genuine
PandaSet sequence, with a random error of its calibration: a rotation of 0.5 to 2 degrees (in any direction of pitch
and yaw, and a quarter of it in roll), a time offset of 30 to 100 ms, both, or none. Time errors are only for cameras
that look sideways, because the images of a camera that looks along the road hardly depend on time.

- found: the verdict is "wrong". Without an error, each of these is a false alarm.
- named: found, and the report names exactly the wrong parts: pitch, yaw or roll for a rotation, time for an offset.
- mended: the error left after the printed correction is below the tolerance in pitch, yaw and time.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import make_parser, table

from uov_hf.data import load_frames
from uov_hf.own_car.calibration_check import TOLERANCE, CalibrationReport, check_calibration, views_of_cameras
from uov_hf.own_car.correction import Correction
from uov_hf.own_car.outlines import View
from uov_hf.synthetic import generate_street


SEEDS = (200, 201)  # the check was made on street 100
LOOKING_ALONG = ("CAM_FRONT", "CAM_BACK", "front_camera")
KINDS = ("none", "rotation", "time", "both")


@dataclass(frozen=True, eq=False)
class Case:
    """A camera of a scene, with the correction that its calibration needs."""

    kind: str
    views: list[View]
    truth: Correction

    def doubted_views(self) -> list[View]:
        """The views, with the error added to their cameras."""
        turn = Correction(-self.truth.rotation).turn
        late = Correction(np.zeros(3), -self.truth.time_offset)
        return [
            replace(
                view, camera=replace(view.camera, lidar2cam=turn @ late.correct(view.camera.lidar2cam, view.velocity))
            )
            for view in self.views
        ]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="Of the streets.")
    parser.add_argument("--num_cases", type=int, default=3, help="Of each kind and each street.")
    parser.add_argument("--pandaset_dir", help="A PandaSet root: rotations of its front camera, too.")
    args = parser.parse_args()
    counts: dict[tuple[str, str], Counter] = {}
    for scene, case in all_cases(args.seeds, args.num_cases, args.pandaset_dir):
        report = check_calibration(case.doubted_views())
        verdict = judge(case, report)
        counts.setdefault((scene, case.kind), Counter()).update(verdict)
        print(f"{scene}, {_text(case.truth)}: {', '.join(verdict)}; {report}", flush=True)
    rows = [[*names, *(count[key] for key in ("case", "wrong", "named", "mended"))] for names, count in counts.items()]
    print(f"\n{table(['scenes', 'error', 'cases', 'found', 'named', 'mended'], rows)}")


def all_cases(seeds: Sequence[int], num_cases: int, pandaset_dir: str | None) -> Iterator[tuple[str, Case]]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            root = generate_street(Path(folder) / "street", 2, 6, seed, azimuth_steps=1084, splits={"train": 2})
            cameras = read_cameras("nuscenes", root)
        rng = np.random.default_rng(seed)
        for kind in KINDS:
            yield from (("street", draw(kind, cameras, rng)) for _ in range(num_cases))
    if pandaset_dir:
        cameras, rng = read_cameras("pandaset", pandaset_dir), np.random.default_rng(0)
        for kind in KINDS[:2]:
            number = 1 if kind == "none" else len(seeds) * num_cases  # without an error there is one only
            yield from (("PandaSet", draw(kind, cameras, rng)) for _ in range(number))


def read_cameras(dataset: str, root: str | Path) -> dict[str, list[View]]:
    frames = load_frames(dataset, "all", data_dir=root)
    return dict(views_of_cameras(frames, len(frames)))


def draw(kind: str, cameras: dict[str, list[View]], rng: np.random.Generator) -> Case:
    names = [name for name in cameras if kind in ("none", "rotation") or name not in LOOKING_ALONG]
    views = cameras[names[rng.integers(len(names))]]
    size, angle = rng.uniform(0.5, 2), rng.uniform(0, 2 * np.pi)
    rotation = size * np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.25, 0.25)])
    time_offset = rng.choice([-1, 1]) * rng.uniform(0.03, 0.1)
    with_rotation, with_time = kind in ("rotation", "both"), kind in ("time", "both")
    return Case(kind, views, Correction(rotation * with_rotation, float(time_offset * with_time)))


def judge(case: Case, report: CalibrationReport) -> list[str]:
    expected = {"rotation", "time"} if case.kind == "both" else {case.kind} - {"none"}
    named = {"time" if name == "time" else "rotation" for name in report.wrong}
    left = np.abs(report.correction.rotation - case.truth.rotation)[:2]
    time_left = abs(report.correction.time_offset - case.truth.time_offset)
    mended = (left < TOLERANCE[:2]).all() and time_left < TOLERANCE[3]
    found = {"case": True, "wrong": report.verdict == "wrong", "named": named == expected, "mended": mended}
    return [name for name, holds in found.items() if holds]


def _text(correction: Correction) -> str:
    pitch, yaw, roll = correction.rotation
    return f"pitch {pitch:+.2f}, yaw {yaw:+.2f}, roll {roll:+.2f}°, time {1000 * correction.time_offset:+.0f} ms"


if __name__ == "__main__":
    main()
