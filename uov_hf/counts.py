"""Checks of counts that a command line gives: whole numbers with a least value."""

from argparse import ArgumentTypeError


def positive_int(text: str) -> int:
    """A whole number of at least 1, as `type=` of an argument of `argparse`.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def check_counts(arguments: object, minimum: int, *names: str) -> None:
    """Check attributes of a dataclass of arguments; None stands for a default.

    Raises:
        ValueError: one is less than `minimum`; the message names it.
    """
    for name in names:
        number = getattr(arguments, name)
        if number is not None and number < minimum:
            raise ValueError(f"--{name}: expected a whole number of at least {minimum}, got {number}.")
