"""Files with the suffix of data that are none: leftovers of systems, editors and programs that were stopped."""

from pathlib import Path


def is_leftover(path: Path) -> bool:
    """Whether a file in a folder of data is no data, by its name.

    These are hidden files (`._000000.bin` of macOS, `.000000.bin.swp`), locks and copies of editors (`~$a.csv`,
    `#a.csv#`), and unfinished files (`000000.tmp.npy`, `000000.part.bin`). `000000 (1).bin` is data.
    """
    return path.name.startswith((".", "~", "#")) or path.suffixes[-2:-1] in ([".tmp"], [".part"], [".partial"])
