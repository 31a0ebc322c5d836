"""Checks of what a teacher is told: wrong settings are refused by their names."""


def check_shares(**settings: float) -> None:
    """
    Raises:
        ValueError: a setting is not between 0 and 1; the message names it.
    """
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be between 0 and 1, got {value}.")


def check_counts(**settings: int) -> None:
    """
    Raises:
        ValueError: a setting is below 1; the message names it.
    """
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


def check_sides(patch_size: int, **sides: int | None) -> None:
    """
    Raises:
        ValueError: a side is shorter than a patch, in pixels; None is no side. The message names it.
    """
    for name, side in sides.items():
        if side is not None and side < patch_size:
            raise ValueError(f"`{name}` must hold a patch of {patch_size} pixels, got {side}.")
