"""SHA-256 digests of files, and lists of them beside the files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


DIGESTS_FILE = "SHA256SUMS"  # as `sha256sum --check` reads it


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path, files: Iterable[Path]) -> None:
    """Write the list of the digests of files in a folder, in the given order."""
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / DIGESTS_FILE).write_text("".join(lines), encoding="utf-8")


def read_digests(folder: Path) -> dict[str, str]:
    """The digests in the list of a folder, by the name of the file.

    Raises:
        OSError, ValueError: The list cannot be read, or a line is not a digest, two spaces and a name.
    """
    digests = {}
    for line in (folder / DIGESTS_FILE).read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        digests[name] = digest
    return digests
