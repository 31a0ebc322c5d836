"""Settings of teachers: typed fields that check their own values."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from uov_hf.teachers.prompts import TEMPLATES


def share(default: Any = MISSING) -> Any:
    """A field from 0 to 1."""
    return field(default=default, metadata={"minimum": 0, "maximum": 1})


def at_least(minimum: int, default: float, recorded: bool = True) -> Any:
    """A field with a least value."""
    return field(default=default, metadata={"minimum": minimum, "recorded": recorded})


def batch_size(default: int) -> Any:
    """A field of at least 1 that changes memory and speed, but no prediction."""
    return at_least(1, default, recorded=False)


def unrecorded(default: Any) -> Any:
    """A field that the teacher records in another form."""
    return field(default=default, metadata={"recorded": False})


def one_of(default: str, *others: str) -> Any:
    """A field with one of these names."""
    return field(default=default, metadata={"choices": {name: name for name in (default, *others)}})


def templates(default: str, recorded: bool = True) -> Any:
    """A key of `TEMPLATES`; the sentences themselves are recorded."""
    return field(default=default, metadata={"choices": TEMPLATES, "recorded": recorded})


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The settings of a teacher beyond the arguments of `Teacher`.

    Raises:
        ValueError: a value is out of range; the message names the field.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            value, limits = getattr(self, one.name), one.metadata
            if "choices" in limits and value not in limits["choices"]:
                raise ValueError(f"`{one.name}` must be one of {', '.join(limits['choices'])}, got {value!r}.")
            if "minimum" in limits and not isinstance(value, (int, float)):
                raise ValueError(f"`{one.name}` must be a number, got {value!r}.")
            if "maximum" in limits and not limits["minimum"] <= value <= limits["maximum"]:
                raise ValueError(
                    f"`{one.name}` must be between {limits['minimum']} and {limits['maximum']}, got {value}."
                )
            if "minimum" in limits and value < limits["minimum"]:
                raise ValueError(f"`{one.name}` must be at least {limits['minimum']}, got {value}.")

    def record(self) -> dict[str, Any]:
        """The fields that change predictions, as JSON."""
        values = {one: getattr(self, one.name) for one in fields(self) if one.metadata.get("recorded", True)}
        return {
            one.name: one.metadata["choices"][value] if "choices" in one.metadata else value
            for one, value in values.items()
        }


def check_sides(patch_size: int, **sides: int | None) -> None:
    """Check that each side, in pixels, is at least one patch long.

    Raises:
        ValueError: a side is shorter; the message names it.
    """
    for name, side in sides.items():
        if side is not None and side < patch_size:
            raise ValueError(f"`{name}` must hold a patch of {patch_size} pixels, got {side}.")
