"""What a broken frame is, and how a report says that some were left out."""

# What reading a broken file raises; any other error is a fault of the program, and stops it.
BROKEN = (OSError, ValueError, KeyError)

# So many broken frames one after another are no accident: the disk is gone, or the folder is another dataset's.
MAX_BROKEN_IN_A_ROW = 20


def report_lines(first: str, num_done_before: int, skipped: dict[str, str]) -> list[str]:
    """The first line, with what an earlier run had done and how many frames are skipped; then a line for each."""
    if num_done_before:
        first += f"; {num_done_before} were there already"
    if skipped:
        first += f"; {len(skipped)} broken and skipped:"
    return [first, *(f"  {frame_id}: {error}" for frame_id, error in skipped.items())]
