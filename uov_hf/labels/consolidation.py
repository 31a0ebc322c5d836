"""The rules by which the segments of many images become one label per point: the paper's, and votes."""

from dataclasses import dataclass
from typing import Literal

from uov_hf.geometry.projection import OcclusionConfig
from uov_hf.labels.superpoints import SuperpointConfig
from uov_hf.labels.time_vote import TimeVoteConfig


@dataclass(frozen=True)
class Consolidation:
    """
    The rule that labels points. The defaults are the paper's; each field switches one vote on.

    Args:
        occlusion (`OcclusionConfig`, *optional*): Leave out the pairs of points that something hides from the camera.
        camera_vote (`str`, defaults to `"last"`):
            The label of a point that several cameras see. `"last"`: the segment of the last camera that has one there,
            as in the paper. `"score"`: each segment is a vote with its score as weight.
        augmentation_vote (`bool`, defaults to `False`):
            The segments of augmented images (flipped, scaled) count as further votes.
        time_vote (`TimeVoteConfig`, *optional*): The votes on the same place in the scans before and after count.
        superpoint_vote (`SuperpointConfig`, *optional*):
            The votes on the other points of the same small patch of surface count.
        min_confidence (`float`, defaults to 0.0): A label with less confidence is dropped.
        clean_pairs (`bool`, defaults to `False`):
            Remove the segment of a pair if its class differs from the label of the point: pre-training does not pool
            it then.

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
