"""Two records of the same run, compared: digests, metrics, and what differs in their environments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from uov_hf.reproduction.environment import Environment
from uov_hf.reproduction.inputs import describe_changes
from uov_hf.reproduction.record import Execution, RunRecord
from uov_hf.training.settings import MAY_CHANGE as MAY_CHANGE_IN_TRAINING


T = TypeVar("T")


# Programs without a training. Rounding moves single points and segments between two labels of nearly the same score.
WITHOUT_TRAINING = ("evaluate", "generate_label_set", "label_points")
# Differences in these arguments are not shown: no result depends on them, or the digests of their files are compared.
MAY_CHANGE = {*MAY_CHANGE_IN_TRAINING, "update_card", "mixed_precision", "recipe"} - {"num_processes"}
SHOWN_DIGITS = 16  # of a digest; run.json has all


class Bounds(NamedTuple):
    """How far two numbers may differ: by `absolute`, or by `relative` of the larger one."""

    absolute: float
    relative: float

    def contain(self, first: float, second: float) -> bool:
        """Whether two numbers differ by no more."""
        return abs(first - second) <= max(self.absolute, self.relative * max(abs(first), abs(second)))


BOUNDS = Bounds(0.002, 0.005)
BOUNDS_OF_TRAINING = Bounds(0.02, 0.05)


@dataclass(frozen=True)
class Row:
    """A result or a metric of two runs.

    Args:
        name (`str`): Its name.
        values (`tuple[str, str]`): Of the first and of the second run; `–` where one lacks it.
        is_equal (`bool`): Whether they are the same.
        is_within_bounds (`bool`, *optional*): Whether a metric of both is; None for a digest.
    """

    name: str
    values: tuple[str, str]
    is_equal: bool
    is_within_bounds: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """What is equal in two runs, and what is not.

    Args:
        outputs (`list[Row]`): The digests of the results.
        metrics (`list[Row]`): The metrics.
        differences (`list[str]`): Of the environments and of the execution.
        is_bitwise (`bool`): Whether the results have to be equal bit for bit, and not within the bounds only.
        bounds (`Bounds`): Of the metrics.
    """

    outputs: list[Row]
    metrics: list[Row]
    differences: list[str]
    is_bitwise: bool
    bounds: Bounds

    @property
    def is_equal(self) -> bool:
        """Whether all digests are the same."""
        return all(row.is_equal for row in self.outputs)

    @property
    def is_reproduced(self) -> bool:
        """Whether the second run gives the results of the first one: equal or, where that is enough, within bounds."""
        within_bounds = bool(self.metrics) and all(row.is_within_bounds for row in self.metrics)
        return bool(self.outputs) and (self.is_equal or (not self.is_bitwise and within_bounds))

    def lines(self) -> Iterator[str]:
        """The table, the differences, and the result in a sentence."""
        rows = [*self.outputs, *(row for row in self.metrics if not row.is_equal)]
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            state = "equal  " if row.is_equal else "within " if row.is_within_bounds else "DIFFERS"
            values = row.values[:1] if row.is_equal else row.values
            yield f"{state}  {row.name:{width}}  {' -> '.join(values)}"
        yield f"{sum(row.is_equal for row in self.metrics)} of {len(self.metrics)} metrics are equal."
        if not self.is_equal:
            # An edited scan of the same size is no difference between the records.
            nothing = "nothing that run.json records; scans and images were compared by names and sizes"
            yield f"The runs also differ in {'; '.join(self.differences) or nothing}."
        yield self._summary()

    def _summary(self) -> str:
        if self.is_equal and self.outputs:
            return "Reproduced: all digests are equal."
        if self.is_bitwise:
            return "Not reproduced: on the same processor, with the same versions, all digests must be equal."
        allowed = f"{self.bounds.absolute:g}, or {100 * self.bounds.relative:g} %"
        if self.is_reproduced:
            return f"Reproduced within the bounds: the digests differ, and no metric by more than {allowed}."
        return f"Not reproduced: a metric is missing, or differs by more than {allowed}."


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Compare two records.

    Results have to be equal bit for bit if both runs used the torch engine on the CPU, with as many processes and
    threads, on a processor of the same name, with the same versions of torch and numpy. Otherwise every metric has to
    be within the bounds.

    Raises:
        ValueError: They are records of different programs.
    """
    if first["program"] != second["program"]:
        raise ValueError(f"The runs are of two programs: {first['program']} and {second['program']}.")
    environments = [Environment(**record["environment"]) for record in (first, second)]
    executions = [Execution(**record["execution"]) for record in (first, second)]
    bounds = BOUNDS if first["program"] in WITHOUT_TRAINING else BOUNDS_OF_TRAINING
    return Comparison(
        [_compare_digests(name, *pair) for name, pair in _pairs(first["outputs"], second["outputs"])],
        [_compare_metrics(name, bounds, *pair) for name, pair in _pairs(first["metrics"], second["metrics"])],
        [*environments[0].differences(environments[1]), *_other_differences(first, second)],
        executions[0] == executions[1] and executions[0].is_bitwise and environments[0].computes_as(environments[1]),
        bounds,
    )


def _pairs(first: Mapping[str, T], second: Mapping[str, T]) -> list[tuple[str, tuple[T | None, T | None]]]:
    """Each name of one of them, with both values."""
    return [(name, (first.get(name), second.get(name))) for name in {**first, **second}]


def _compare_digests(name: str, first: str | None, second: str | None) -> Row:
    shown = (first or "–")[:SHOWN_DIGITS], (second or "–")[:SHOWN_DIGITS]
    return Row(name, shown, first == second)


def _compare_metrics(name: str, bounds: Bounds, first: float | None, second: float | None) -> Row:
    shown = tuple("–" if value is None else f"{value:.6g}" for value in (first, second))
    is_equal = first == second or (first != first and second != second)  # NaN in both is the same result
    within_bounds = is_equal or (first is not None and second is not None and bounds.contain(first, second))
    return Row(name, (shown[0], shown[1]), is_equal, within_bounds)


def _other_differences(first: RunRecord, second: RunRecord) -> list[str]:
    """What differs in execution, arguments and inputs; folders are compared by the digests of their files."""
    found = []
    for pairs in (_pairs(first["execution"], second["execution"]), _pairs(first["arguments"], second["arguments"])):
        found += [f"{name} {old} -> {new}" for name, (old, new) in pairs if old != new and name not in MAY_CHANGE]
    return [*found, *describe_changes(first["inputs"], second["inputs"])]
