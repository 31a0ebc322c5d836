"""Files with the suffix of data that are none: leftovers of systems, editors and programs that were stopped."""

from pathlib import Path


UNFINISHED = (".tmp", ".part", ".partial")


def data_files(folder: Path, pattern: str) -> list[Path]:
    """The files and folders of a pattern (of `Path.glob`) that are data, sorted by path."""
    return sorted(path for path in folder.glob(pattern) if not is_leftover(path))


def is_leftover(path: Path) -> bool:
    """Whether a file or folder among data is no data, by its name.

    These are hidden files (`._000000.bin` of macOS, `.000000.bin.swp`), `__MACOSX`, locks and copies of editors
    (`~$a.csv`, `#a.csv#`), and unfinished files (`000000.tmp.npy`, `000000.part.bin`). `000000 (1).bin` is data.
    """
    return path.name.startswith((".", "~", "#", "__MACOSX")) or path.with_suffix("").suffix in UNFINISHED
