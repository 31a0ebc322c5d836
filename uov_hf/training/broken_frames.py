"""`--on_error skip`: a frame that cannot be read costs itself, not the run."""

from torch.utils.data import Dataset

from uov_hf.training.order import FrameKey


# So many broken frames one after another are no accident: the disk is gone, or the label set is another's.
MAX_IN_A_ROW = 20


class SkipBrokenFrames(Dataset):
    """A dataset in which the next readable frame stands in for one that is broken.

    Samples carry `broken_frames`, a list of messages. Which frame stands in depends on the key alone, so that every
    rank still has its micro-batch at every step and a resumed run meets the same frames.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: FrameKey) -> dict:
        epoch, index = key
        broken = []
        for offset in range(min(MAX_IN_A_ROW, len(self))):
            try:
                sample = self.dataset[epoch, (index + offset) % len(self)]
            except (OSError, ValueError, KeyError) as error:
                broken.append(f"{type(error).__name__}: {error}")
            else:
                return {**sample, "broken_frames": broken}
        raise RuntimeError(f"{len(broken)} frames in a row are broken; the last: {broken[-1]}")
