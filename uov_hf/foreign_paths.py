"""Names of files that a file of a dataset contains: they must stay in the dataset's folder."""

import os
from pathlib import Path


def inside(folder: Path, name: str, source: str | Path) -> Path:
    """The path of a named file, if the name does not lead out of the folder.

    Only the text of the name is checked. A link in the folder may lead anywhere, because its owner made it.

    Args:
        folder (`Path`): The folder that the name is relative to.
        name (`str`): The name, which may have several parts.
        source (`str` or `Path`): What contains the name, for the message.

    Raises:
        ValueError: The name is absolute, or leads out of the folder with `..`.
    """
    # Without inner `..`, which the system would apply behind a link: `link/../x` can be anywhere.
    path = Path(os.path.normpath(name))
    if path.anchor or path.parts[:1] == ("..",):
        raise ValueError(
            f"{source}: expected the name of a file in {folder}, got {name!r}, which leads out of it. A dataset may "
            "name its own files only. If the file is yours, make a link to it in the folder and give the link's name."
        )
    return folder / path
