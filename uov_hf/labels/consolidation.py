"""The rules by which the segments of many images become one label per point: the paper's, and votes."""

from dataclasses import dataclass, replace
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
            as in the paper. `"all"`: the segment of each camera is a vote.
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
    camera_vote: Literal["last", "all"] = "last"
    augmentation_vote: bool = False
    time_vote: TimeVoteConfig | None = None
    superpoint_vote: SuperpointConfig | None = None
    min_confidence: float = 0.0
    clean_pairs: bool = False

    def __post_init__(self):
        if self.camera_vote not in ("last", "all"):
            raise ValueError(f'`camera_vote` must be "last" or "all", got {self.camera_vote!r}.')
        object.__setattr__(self, "min_confidence", float(self.min_confidence))  # 1 and 1.0 are one rule
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"`min_confidence` must be between 0 and 1, got {self.min_confidence}.")


PRESETS = {
    "paper": Consolidation(),
    "consolidated": Consolidation(
        occlusion=OcclusionConfig(),
        camera_vote="all",
        augmentation_vote=True,
        time_vote=TimeVoteConfig(),
        superpoint_vote=SuperpointConfig(),
        clean_pairs=True,
    ),
}
# The name of each vote on a command line, and the field of `Consolidation` that switches it on.
VOTES = {
    "occlusion": "occlusion",
    "cameras": "camera_vote",
    "augmentations": "augmentation_vote",
    "time": "time_vote",
    "superpoints": "superpoint_vote",
    "clean_pairs": "clean_pairs",
}


def parse_rule(
    preset: str | None = None, rules: str | None = None, min_confidence: float = 0.0
) -> str | Consolidation:
    """
    The rule that a command line names, as [`label_points`] and [`PointLabels`] take it.

    Args:
        preset (`str`, *optional*): A key of `PRESETS`; without it and without `rules`, `"paper"`.
        rules (`str`, *optional*):
            The votes that count instead of a preset's: keys of `VOTES`, separated by commas. Their settings are those
            of the preset `"consolidated"`.
        min_confidence (`float`, *optional*, defaults to 0.0): Labels with less confidence are dropped.

    Returns:
        `str` or `Consolidation`: The name of the preset that is the same rule, if there is one.

    Raises:
        ValueError: `preset` and `rules` are both given, one of their names does not exist, or `min_confidence` is not
            between 0 and 1.
    """
    if preset is not None and rules is not None:
        raise ValueError(
            f"A preset and a list of votes exclude each other, got the preset {preset!r} and the votes {rules!r}: "
            "give one of them."
        )
    rule = rule_of_preset(preset or "paper") if rules is None else _rule_of_votes(rules)
    rule = replace(rule, min_confidence=min_confidence)
    return next((name for name, known in PRESETS.items() if known == rule), rule)


def rule_of_preset(name: str) -> Consolidation:
    """The rule of a preset; an unknown name is a ValueError."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}; there are: {', '.join(PRESETS)}.")
    return PRESETS[name]


def _rule_of_votes(rules: str) -> Consolidation:
    fields = {}
    for name in (part.strip() for part in rules.split(",")):
        if name not in VOTES:
            raise ValueError(f"There is no vote {name!r}; there are: {', '.join(VOTES)}.")
        fields[VOTES[name]] = getattr(PRESETS["consolidated"], VOTES[name])
    return replace(PRESETS["paper"], **fields)
