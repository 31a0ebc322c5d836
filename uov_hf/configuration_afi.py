"""The constants of approximate flat interaction (AFI)."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .ground_ring import GroundRing, check_names, check_numbers


MAX_DIRECTIONS = 10_000  # each takes memory for each point


@dataclass(frozen=True)
class AFIConfig:
    """Constants of AFI.

    The defaults are the paper's (the AFI keys of the official `config/annotation_free_*.yaml`), but without the ground
    ring and the mask of the vehicle. The paper's evaluation always has these; they need a `ground_ring`.

    Args:
        level_sizes (`tuple[int, ...]`, *optional*, defaults to `(1365, 455, 151, 50)`):
            Points of the levels above the scan: 4096 divided by 3, 9, 27 and 81.
        level_shares (`tuple[float, ...]`, *optional*):
            The sizes as shares of the points of the scan, up to 1. Replaces `level_sizes`, so that a denser scan has
            denser levels.
        num_neighbors (`int`, *optional*, defaults to 20):
            Nearest points of the level below from which a picked point gathers.
        num_directions (`int`, *optional*, defaults to 20):
            Directions of the sphere into which these neighbours are sorted.
        num_voters (`int`, *optional*, defaults to 6):
            Nearest points of the level above that vote for a point on the way back.
        min_cosine (`float`, *optional*, defaults to 0.995):
            A line follows a direction where |cosine| is above this (5.7 degrees).
        min_count (`int`, *optional*, defaults to 0): Directions of the first level need more neighbours than this.
        base_vote (`float`, *optional*, defaults to 0.0):
            Weight of each voter beside its trust in directions along the line. With 0, a point keeps its own evidence
            where no voter trusts a direction towards it.
        own_weights (`tuple[float, ...]`, *optional*):
            Weight of a point's own evidence on the way back, for each level from the scan up. By default 0.3 where a
            level has three times the points of the one above it, 0.01 elsewhere.
        ground_ring ([`GroundRing`], *optional*):
            Treatment of the ground around the vehicle and of the vehicle. By default they are points like all others.

    Raises:
        ValueError: A constant is out of range, or no number.
    """

    level_sizes: tuple[int, ...] = (1365, 455, 151, 50)
    level_shares: tuple[float, ...] | None = None
    num_neighbors: int = 20
    num_directions: int = 20
    num_voters: int = 6
    min_cosine: float = 0.995
    min_count: int = 0
    base_vote: float = 0.0
    own_weights: tuple[float, ...] | None = None
    ground_ring: GroundRing | None = None

    def __post_init__(self) -> None:
        for name in ("level_sizes", "level_shares", "own_weights"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))  # the dataclass is frozen
        check_numbers(self, Integral, "level_sizes", "num_neighbors", "num_directions", "num_voters", "min_count")
        given = [name for name in ("level_shares", "own_weights") if getattr(self, name) is not None]
        check_numbers(self, Real, "min_cosine", "base_vote", *given)
        if not self.level_sizes or min(self.level_sizes) < 1:
            raise ValueError(f"`level_sizes` must be one or more numbers of points, got {self.level_sizes}.")
        if self.level_shares is not None and not all(0 < share <= 1 for share in self.level_shares or [0]):
            raise ValueError(f"`level_shares` must be one or more numbers up to 1, got {self.level_shares}.")
        num_levels = len(self.level_shares or self.level_sizes)
        if self.own_weights is not None and (len(self.own_weights) != num_levels or min(self.own_weights) < 0):
            raise ValueError(f"`own_weights` must be {num_levels} numbers from 0, got {self.own_weights}.")
        least = {"num_neighbors": 1, "num_directions": 2, "num_voters": 1, "min_count": 0, "base_vote": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"`{name}` must be {value} or more, got {getattr(self, name)}.")
        if self.num_directions > MAX_DIRECTIONS:
            raise ValueError(f"`num_directions` must be {MAX_DIRECTIONS} or less, got {self.num_directions}.")
        if not 0 <= self.min_cosine < 1:
            raise ValueError(f"`min_cosine` must be 0 or more and below 1, got {self.min_cosine}.")

    def sizes_for(self, num_points: int) -> tuple[int, ...]:
        """Numbers of points of the levels above a scan."""
        if self.level_shares is None:
            return self.level_sizes
        return tuple(max(1, int(share * num_points)) for share in self.level_shares)

    @classmethod
    def from_dict(cls, settings: dict[str, Any], label2id: dict[str, int] | None = None) -> "AFIConfig":
        """Create the constants from the settings of a checkpoint.

        Args:
            settings (`dict`):
                Constants that differ from the paper's. A `ground_ring` is a dictionary whose `classes` are names.
            label2id (`dict[str, int]`, *optional*): `model.config.label2id`; needed for a `ground_ring`.

        Raises:
            ValueError: A name is unknown, a value is out of range, or a ring has no `classes` or no `label2id`.
        """
        check_names(settings, cls)
        if settings.get("ground_ring") is None:
            return cls(**settings)
        if label2id is None or "classes" not in settings["ground_ring"]:
            raise ValueError(
                "A `ground_ring` names the `classes` that ground may have, and `label2id` numbers them: got "
                f"{settings['ground_ring']} and `label2id` {label2id}. Pass `label2id=model.config.label2id`."
            )
        ring_settings = dict(settings["ground_ring"])
        ring = GroundRing.from_names(ring_settings.pop("classes"), label2id, **ring_settings)
        return cls(**{**settings, "ground_ring": ring})


# One level of all points, where every vote counts: this corrects the most labels (method.md, 5.2).
DENSE = AFIConfig(level_shares=(1.0,), base_vote=0.01)
