"""Print the card of a checkpoint, a label set or a dataset, from its folder or from the Hub.

With --render the card of a checkpoint in a folder is first written again from its configuration, for a card that is
lost or wrong; such a card has no training or evaluation results. `python -m uov_hf.evaluation.label_card` makes the
card of a label set, with figures and a gallery.

examples:
  uov-hf card out/demo/uov
  uov-hf card user/name --repo_type dataset
  uov-hf card out/demo/uov --render
"""

import argparse
from collections.abc import Iterable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name_or_path", help="folder or Hub id")
    parser.add_argument(
        "--repo_type", choices=("model", "dataset"), default="model", help="of a Hub id; default: model"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--render", action="store_true", help="write the card again first; folders only")


def run(args: argparse.Namespace) -> Iterable[str]:
    from pathlib import Path

    from uov_hf.hub.cards import read_card, write_default_card

    if args.render:
        if not (Path(args.name_or_path) / "config.json").is_file():
            raise ValueError(
                f"{args.name_or_path}: --render needs a folder with a checkpoint, but config.json is missing."
            )
        write_default_card(Path(args.name_or_path))
    yield read_card(args.name_or_path, args.repo_type, args.revision).rstrip()
