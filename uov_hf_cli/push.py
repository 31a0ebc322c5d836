"""Upload a checkpoint or a label set to the Hub, in one commit.

A folder with label_set.json is a label set, one with config.json is a checkpoint. Other files are not uploaded; label
sets are uploaded without sensor data and local paths. Dataset scripts upload frames, because they check the licence:
python dataset_scripts/nuscenes.py --data_dir … --push_to_hub ID. Log in first with `hf auth login`. If an upload is
interrupted, run the command again; nothing is visible on the Hub before an upload is complete.

examples:
  uov-hf push out/demo/uov my-name/uov-street --private
  uov-hf push out/demo/labels my-name/street-labels --revision v2
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a checkpoint or a label set")
    parser.add_argument("repo_id", help="user/name; created if missing")
    parser.add_argument("--private", action="store_true", help="create a private repository; fail if it is public")
    parser.add_argument("--revision", help="branch, created if missing; default: main")
    parser.add_argument("--commit_message", help="title of the commit")
    parser.add_argument(
        "--allow_partial", action="store_true", help="upload a label set although frames are missing in it"
    )


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.hub.upload import UploadOptions

    options: UploadOptions = {"private": args.private, "revision": args.revision}
    if args.commit_message:
        options["commit_message"] = args.commit_message
    if (args.folder / "label_set.json").is_file():
        from uov_hf.labels import LabelSet, push_label_set

        yield push_label_set(LabelSet(args.folder), args.repo_id, args.allow_partial, **options)
    elif (args.folder / "config.json").is_file():
        from uov_hf.hub.checkpoint import push_checkpoint

        yield push_checkpoint(args.folder, args.repo_id, **options)
    else:
        raise ValueError(
            f"{args.folder}: expected a checkpoint or a label set, found neither config.json nor label_set.json. "
            "Dataset scripts upload frames: python dataset_scripts/NAME.py … --push_to_hub ID"
        )
