"""The files and folders that are ROS bags. Finding them needs no package that reads them."""

from pathlib import Path


SUFFIXES = (".bag", ".mcap", ".db3")


def bags_in(root: Path) -> list[Path]:
    """The bag that a path is, or those in the folder that it is, sorted by name; maybe none."""
    return [root] if _is_bag(root) else sorted(path for path in root.glob("*") if _is_bag(path))


def find_bags(root: Path) -> list[Path]:
    """The bags of [`bags_in`].

    Raises:
        ValueError: There is none.
    """
    found = bags_in(root)
    if not found:
        got = "none in it" if root.is_dir() else "something else" if root.exists() else "no file"
        raise ValueError(
            f"{root}: expected a ROS bag ({', '.join(SUFFIXES)}, or a folder with metadata.yaml), or a folder with "
            f"bags, got {got}."
        )
    return found


def _is_bag(path: Path) -> bool:
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.is_file() and path.suffix in SUFFIXES and not path.name.startswith(".")
