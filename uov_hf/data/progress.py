"""The progress of a run over frames: a bar in a terminal, and the expected cost in the log."""

import logging

from tqdm import tqdm

from uov_hf.data.estimate import Forecast


logger = logging.getLogger(__name__)


class Progress:
    """
    Counts the rows that a process writes.

    Args:
        forecast (`Forecast`): Estimates the cost of the run from its first rows.
        num_frames (`int`): Frames of this process.
        show (`bool`): Whether the bar is shown and the estimate is logged.
    """

    def __init__(self, forecast: Forecast, num_frames: int, show: bool):
        self.forecast = forecast
        self.show = show
        self.num_bytes = 0
        self.bar = tqdm(total=num_frames, unit="frame", disable=None if show else True)  # None: in a terminal only

    def row_written(self, num_bytes: int) -> None:
        """
        Count a row.

        Raises:
            OSError: the disk has no room for the rest of the run.
        """
        self.num_bytes += num_bytes
        self.bar.update()
        estimate = self.forecast.frame_written(self.num_bytes)
        if estimate and self.show:
            self.bar.clear()
            logger.info("%s", estimate)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
