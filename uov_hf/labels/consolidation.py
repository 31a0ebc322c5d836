"""How the segments of many images become one label per point: the paper's rule, votes with a switch each, presets."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from uov_hf.geometry.projection import OcclusionConfig
from uov_hf.labels.superpoints import SuperpointConfig
from uov_hf.labels.time_vote import TimeVoteConfig


@dataclass(frozen=True)
class Consolidation:
    """
    The rule by which points are labelled. The defaults are the paper's; each field switches one vote on.

    Args:
        occlusion (`OcclusionConfig`, *optional*):
            Leave out the pairs of points that something hides from the camera.
        camera_vote (`str`, defaults to `"last"`):
            Where several cameras see a point: with `"last"` the last one that has a segment there decides, as in the
            paper; with `"score"` each segment is a vote that weighs its score.
        augmentation_vote (`bool`, defaults to `False`):
            What the teacher said about augmented images (flipped, scaled) counts as further votes.
        time_vote (`TimeVoteConfig`, *optional*):
            Hear what is said about the same place in the scans before and after.
        superpoint_vote (`SuperpointConfig`, *optional*):
            Hear what is said about the other points of the same small patch of surface.
        min_confidence (`float`, defaults to 0.0):
            A point whose label would have less confidence gets none.
        clean_pairs (`bool`, defaults to `False`):
            A pair whose segment is of another class than the label of its point loses the segment, so that
            pre-training does not pool it.

    Raises:
        ValueError: a field is out of range.
    """

    occlusion: OcclusionConfig | None = None
    camera_vote: Literal["last", "score"] = "last"
    augmentation_vote: bool = False
    time_vote: TimeVoteConfig | None = None
    superpoint_vote: SuperpointConfig | None = None
    min_confidence: float = 0.0
    clean_pairs: bool = False

    def __post_init__(self):
        if self.camera_vote not in ("last", "score"):
            raise ValueError(f'`camera_vote` must be "last" or "score", got {self.camera_vote!r}.')
        object.__setattr__(self, "min_confidence", float(self.min_confidence))  # 1 and 1.0 are one rule
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"`min_confidence` must be between 0 and 1, got {self.min_confidence}.")

    @property
    def is_the_papers(self) -> bool:
        return self == Consolidation()

    def settings(self) -> dict[str, Any]:
        """All switches, as JSON."""
        return asdict(self)


PRESETS = {
    "paper": Consolidation(),
    "consolidated": Consolidation(
        occlusion=OcclusionConfig(),
        camera_vote="score",
        augmentation_vote=True,
        time_vote=TimeVoteConfig(),
        superpoint_vote=SuperpointConfig(),
        clean_pairs=True,
    ),
}
