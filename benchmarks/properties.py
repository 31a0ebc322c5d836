"""Hostile arrays for everything public that takes arrays: 100,000 examples of the properties in tests/properties.

    python benchmarks/properties.py --output_dir out/reliability

The tests are those of the fast suite, with other examples in each round. The first round runs 50 examples of each
property and measures their times. Later rounds give each property the same time, so that cheap ones run more. A round
that was interrupted continues; a run into the same folder with a larger `--num_examples` adds rounds.

`properties.json` has the examples that ran to their end, by property; examples that a test rejects do not count.
"""

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import pytest
from common import REPOSITORY, make_parser, write_result
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings

from uov_hf.data.shard_file import write_atomically


FOLDER = REPOSITORY / "tests" / "properties"
FIRST = 50  # examples of each property in the first round
LONGEST = 4000  # examples of a property in one round, so that memory of hypothesis stays small


class Count(TypedDict):
    """What one property did: examples that ran to their end, seconds, and the failing example, if there is one."""

    examples: int
    seconds: float
    failure: str


class Counter:
    """A plugin of pytest that gives each property its number of examples, and counts those that really ran.

    Args:
        budgets (`dict[str, int]`, *optional*): Examples by the name of the test; by default `FIRST` of all.
        number (`int`): Of the round; the seed of its examples.
    """

    def __init__(self, budgets: dict[str, int] | None, number: int):
        self.budgets, self.number = budgets, number
        self.counts: dict[str, Count] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if hasattr(item.obj, "hypothesis")]
        if self.budgets is not None:
            items[:] = [item for item in items if self.budgets.get(item.name)]
        for item in items:
            self.counts[item.name] = {"examples": 0, "seconds": 0.0, "failure": ""}
            item.obj.hypothesis.inner_test = self._counted(item.obj.hypothesis.inner_test, self.counts[item.name])
            most = FIRST if self.budgets is None else self.budgets[item.name]
            own = settings(
                max_examples=most,
                derandomize=False,
                database=None,
                deadline=None,
                verbosity=Verbosity.quiet,
                phases=[Phase.explicit, Phase.generate],  # a failing example is reported as it came
                suppress_health_check=[*HealthCheck],
            )
            own(seed(self.number)(item.obj))

    def _counted(self, test, count: Count):
        def run(*args, **options):
            result = test(*args, **options)
            count["examples"] += 1
            return result

        return run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            count = self.counts[report.nodeid.split("::")[-1]]
            count["seconds"], count["failure"] = report.duration, report.longreprtext[-2000:]


def run_part(path: str, budgets: dict[str, int] | None, number: int) -> dict[str, Count]:
    """The counts of the properties of one file, in this process."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    counter = Counter(budgets, number)
    pytest.main([path, "-q", "-p", "no:cacheprovider", "-m", "not slow"], plugins=[counter])
    return counter.counts


def plan(rows: dict[str, Count], missing: int) -> dict[str, int]:
    """Examples of each property in the next round: as many as fit in the same time for all."""
    costs = {name: max(row["seconds"] / max(row["examples"], 1), 1e-4) for name, row in rows.items()}
    low, high = 0.0, 1e4  # seconds of each property; more give more examples
    for _ in range(60):
        middle = (low + high) / 2
        total = sum(min(LONGEST, int(middle / cost)) for cost in costs.values())
        low, high = (middle, high) if total < missing else (low, middle)
    return {name: min(LONGEST, int(high / cost) + 1) for name, cost in costs.items()}


def summarize(state: dict) -> dict[str, Any]:
    """The `summary` and `rows`, which are sums by file, and all `properties`, of which there are a hundred."""
    rows = [
        {
            "file": file,
            "properties": len(counts),
            "examples": sum(count["examples"] for count in counts.values()),
            "failures": sum(bool(count["failure"]) for count in counts.values()),
        }
        for file, counts in state["counts"].items()
    ]
    properties = [
        {"file": file, "property": name.removeprefix("test_").replace("_", " ")} | count
        for file, counts in state["counts"].items()
        for name, count in counts.items()
    ]
    return {
        "summary": {
            "properties": len(properties),
            "examples": sum(row["examples"] for row in rows),
            "failing properties": sum(row["failures"] for row in rows),
            "minutes": round(sum(count["seconds"] for count in properties) / 60, 1),
        },
        "rows": rows,
        "properties": properties,
    }


def add(counts: dict[str, Count], new: dict[str, Count]) -> None:
    """Add the counts of a part to those of earlier rounds."""
    for name, own in new.items():
        before = counts.setdefault(name, {"examples": 0, "seconds": 0.0, "failure": ""})
        before["examples"] += own["examples"]
        before["seconds"] += own["seconds"]
        before["failure"] = before["failure"] or own["failure"]


def run_round(state: dict, missing: int, save) -> None:
    """Run the parts of a round that have not run yet."""
    files = sorted(FOLDER.glob("test_*.py"))
    if not state["budgets"] and state["round"]:
        state["budgets"] = plan({k: v for counts in state["counts"].values() for k, v in counts.items()}, missing)
    for path in files:
        if path.name in state["done"]:
            continue
        start = time.time()
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:  # the imports are made once
            counts = pool.submit(run_part, str(path), state["budgets"] or None, state["round"]).result()
        add(state["counts"].setdefault(path.name, {}), counts)
        state["done"].append(path.name)
        num_examples = sum(count["examples"] for count in counts.values())
        print(f"round {state['round']}, {path.name}: {num_examples} examples, {time.time() - start:.0f} s", flush=True)
        for name, count in counts.items():
            if count["failure"]:
                print(f"{name} failed:\n{count['failure']}", flush=True)
        save()
    state.update(round=state["round"] + 1, budgets={}, done=[])
    save()


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    parser.add_argument("--num_examples", type=int, default=100_000, help="Of all properties; default: %(default)s.")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    state_path = args.output_dir / "properties_state.json"
    state = {"round": 0, "budgets": {}, "done": [], "counts": {}}
    if state_path.exists():
        state = json.loads(state_path.read_text(encoding="utf-8"))

    def save() -> None:
        write_atomically(state_path, json.dumps(state).encode())
        command = f"python benchmarks/properties.py --num_examples {args.num_examples}"
        write_result(args.output_dir, "properties", command=command, **summarize(state))

    while (missing := args.num_examples - summarize(state)["summary"]["examples"]) > 0:
        run_round(state, missing, save)
    save()
    print(json.dumps(summarize(state)["summary"], indent=2))


if __name__ == "__main__":
    main()
