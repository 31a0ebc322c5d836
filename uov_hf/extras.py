"""The check that the packages of the extra `train` are installed."""

from importlib.util import find_spec


# As in pyproject.toml.
TRAIN = ("accelerate", "datasets", "matplotlib", "psutil", "pyarrow", "scipy")


def require_train_extra(module: str) -> None:
    """Check that every package of the extra `train` is installed.

    Args:
        module (`str`): The module that needs them, for the message.

    Raises:
        ImportError: If one is missing. The message names the missing packages and the command that installs them.
    """
    missing = [name for name in TRAIN if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"`{module}` needs packages that are not installed: {', '.join(missing)}. "
            "They belong to the extra `train`: pip install 'uov-hf[train]'"
        )
