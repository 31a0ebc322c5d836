"""The command line of a script, from the fields of its dataclass."""

import argparse
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help of the options, and the lines of the description as they are."""


class ScriptParser(HfArgumentParser):
    """`HfArgumentParser` with a help of its own, and with lists that may stand without a value.

    A list whose field has the metadata `may_be_empty` is empty if its flag has no value, as in `--corruptions`.
    """

    def __init__(self, dataclass_type: DataClassType, **settings: Any):
        super().__init__(dataclass_type, formatter_class=_HelpFormatter, **settings)

    def add_argument(self, *names: str, may_be_empty: bool = False, **settings: Any) -> argparse.Action:
        if may_be_empty:
            settings["nargs"] = "*"
        return super().add_argument(*names, **settings)
