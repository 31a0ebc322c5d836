"""Upload a checkpoint or a label set to the Hub, in one commit.

A folder is what it looks like: with a label_set.json it is a label set, with a config.json a checkpoint. Only what
belongs to it goes up, and a label set without sensor data and local paths. Frames are uploaded by their dataset
script, which knows their licence: python dataset_scripts/nuscenes.py --data_dir … --push_to_hub ID. An upload that was
interrupted is run again; until it is complete nothing of it can be seen. `hf auth login` comes first.

examples:
  uov-hf push out/demo/uov my-name/uov-street --private
  uov-hf push out/demo/labels my-name/street-labels --revision v2
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a checkpoint or a label set")
    parser.add_argument("repo_id", help="user/name; made where it is not there")
    parser.add_argument("--private", action="store_true", help="the repository must be private")
    parser.add_argument("--revision", help="the branch, made where it is not there; default: main")
    parser.add_argument("--commit_message", help="the title of the commit")


def run(args: argparse.Namespace) -> Iterable[str]:
    options = {"private": args.private, "revision": args.revision}
    if args.commit_message:
        options["commit_message"] = args.commit_message
    if (args.folder / "label_set.json").is_file():
        from uov_hf.labels import LabelSet

        yield LabelSet(args.folder).push_to_hub(args.repo_id, **options)
    elif (args.folder / "config.json").is_file():
        from uov_hf.hub.checkpoint import push_checkpoint

        yield push_checkpoint(args.folder, args.repo_id, **options)
    else:
        raise ValueError(
            f"{args.folder}: expected a checkpoint or a label set, found neither config.json nor label_set.json. "
            "Frames are uploaded by their dataset script: python dataset_scripts/NAME.py … --push_to_hub ID"
        )
