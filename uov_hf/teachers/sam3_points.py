"""SAM 3's tracker at a grid of points: as `sam2`, with the masks of a newer model."""

from transformers import Sam3TrackerModel

from uov_hf.teachers.sam2 import Sam2Teacher


class Sam3PointsTeacher(Sam2Teacher):
    """
    Masks that SAM 3 proposes without words. Its tracker is prompted as SAM 2 is; there is no published generator for
    it, so that SAM 2's rules and defaults hold: see `Sam2Teacher` for the arguments.
    """

    name = "sam3_points"
    example = "facebook/sam3"
    model_class = Sam3TrackerModel
