"""Segment lidar scans, view them, and inspect checkpoints, label sets and vocabularies.

Exit status: 0 success, 1 failure, 2 invalid command line.

examples:
  uov-hf segment scan.bin --model_name_or_path out/demo/uov --candidate_labels "car, road, tree" --output_dir out/scan
  uov-hf inspect drive.mcap     what a ROS bag contains, and what is missing for which stage
  uov-hf doctor                 check this machine and the installed packages
  uov-hf segment --help         options and examples of a command
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


COMMANDS = (
    *("train", "reproduce", "segment", "eval", "inspect", "view", "label-images"),
    *("vocabulary", "card", "push", "convert", "export", "doctor"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 success, 1 failure (argparse itself exits with 2)."""
    if arguments is None and not sys.stderr.isatty():
        # Libraries read these variables when they are imported, and none is imported yet.
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        args = make_parser().parse_args(arguments)
        args.command_line = list(sys.argv[1:] if arguments is None else arguments)[1:]  # for the record of a run
        for line in args.run(args):
            print(line, flush=True)
    except BrokenPipeError:  # `| head` has closed the pipe; Python would report an error when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        print(f"uov-hf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands. A command's file has `add_arguments(parser)` and `run(args)`, which yields lines."""
    parser = _describe(argparse.ArgumentParser, __doc__ or "", prog="uov-hf")
    version = "print the version of uov-hf and exit"
    parser.add_argument("--version", action=_PrintVersion, nargs=0, default=argparse.SUPPRESS, help=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"uov_hf_cli.{name.replace('-', '_')}")
        text = module.__doc__ or ""
        summary = re.split("[.:;]", text)[0]
        command = _describe(commands.add_parser, text, name, help=summary[0].lower() + summary[1:])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _describe(
    make: Callable[..., argparse.ArgumentParser], text: str, *names: str, **options: Any
) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of a file, with the examples last."""
    description, _, examples = text.partition("\nexamples:\n")
    return make(
        *names,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"uov-hf {version('uov-hf')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
