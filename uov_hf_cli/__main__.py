"""Segment lidar scans, look at them, and look at what the package works with.

examples:
  uov-hf segment scan.bin --model_name_or_path out/demo/uov --candidate_labels "car, road, tree" --output_dir out/scan
  uov-hf doctor                 what works on this machine, and what is missing
  uov-hf segment --help         every command has such a page, with an example
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module


COMMANDS = ("segment", "label-images", "view", "vocabulary", "card", "push", "convert", "doctor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status: 0, or 1 where what was asked for is wrong (2: how it was asked)."""
    if arguments is None and not sys.stderr.isatty():
        # Read by the libraries when they are imported, which none is yet.
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        args = make_parser().parse_args(arguments)
        for line in args.run(args):
            print(line, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; nor may Python complain when it closes the pipe at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        print(f"uov-hf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; a command's file has `add_arguments(parser)`, and `run(args)`, which gives its lines."""
    parser = _describe(argparse.ArgumentParser, __doc__, prog="uov-hf")
    parser.add_argument(
        "--version",
        action=_PrintVersion,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print the version of uov-hf and exit",
    )
    parser.add_argument(
        "--print_completion",
        metavar="SHELL",
        action=_PrintCompletion,
        default=argparse.SUPPRESS,
        help="print what completes commands and options by the tab key in bash, zsh or tcsh, and exit: "
        'eval "$(uov-hf --print_completion bash)"',
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"uov_hf_cli.{name.replace('-', '_')}")
        summary = re.split("[.:;]", module.__doc__)[0]
        command = _describe(commands.add_parser, module.__doc__, name, help=summary[0].lower() + summary[1:])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _describe(make, text: str, *names: str, **options) -> argparse.ArgumentParser:
    """A parser whose help says what its file says: what it does first, its examples last."""
    description, _, examples = text.partition("\nexamples:\n")
    return make(
        *names,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


class _PrintVersion(argparse.Action):
    def __call__(self, parser, *_):
        from importlib.metadata import version

        print(f"uov-hf {version('uov-hf')}")
        parser.exit()


class _PrintCompletion(argparse.Action):
    def __call__(self, parser, namespace, shell, option_string=None):
        try:
            import shtab
        except ImportError:
            parser.error("completion is made by shtab, which is not installed: pip install 'uov-hf[completion]'")
        if shell not in shtab.SUPPORTED_SHELLS:
            parser.error(f"completion is for {', '.join(shtab.SUPPORTED_SHELLS)}, got {shell!r}")
        print(shtab.complete(parser, shell))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
