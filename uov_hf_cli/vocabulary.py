"""Print the classes of a vocabulary, and the class and raw id of each prompt.

examples:
  uov-hf vocabulary                list the vocabularies
  uov-hf vocabulary nuscenes       print one of them
  uov-hf vocabulary my.yaml        check and print your own
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from uov_hf.vocabulary import Vocabulary

Row = tuple[int | str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="name or .yaml file of the vocabulary; default: list all names")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.vocabulary import available_vocabularies, load_vocabulary

    return _show_vocabulary(load_vocabulary(args.name)) if args.name else available_vocabularies()


def _show_vocabulary(vocabulary: "Vocabulary") -> Iterable[str]:
    yield (
        f"{vocabulary.name}: {len(vocabulary.class_names)} classes, {len(vocabulary.raw_names)} raw classes, "
        f"{len(vocabulary.prompts)} prompts"
    )
    yield from ["", *_align(["id", "class", "kind", "color", "raw ids"], _class_rows(vocabulary))]
    yield from ["", *_align(["row", "prompt", "class", "raw id", "raw class"], _prompt_rows(vocabulary))]


def _class_rows(vocabulary: "Vocabulary") -> Iterable[Row]:
    class_of_raw = vocabulary.classes_of(vocabulary.raw_ids)
    for class_id, name in class_names(vocabulary).items():
        raw_ids = ", ".join(map(str, vocabulary.raw_ids[class_of_raw == class_id]))
        if class_id < len(vocabulary.class_names):
            kind = "thing" if vocabulary.is_thing[class_id] else "stuff"
            yield class_id, name, kind, "#{:02x}{:02x}{:02x}".format(*vocabulary.colors[class_id]), raw_ids
        elif raw_ids:
            yield class_id, name, "", "", raw_ids


def _prompt_rows(vocabulary: "Vocabulary") -> Iterable[Row]:
    names = class_names(vocabulary)
    raw_names = dict(zip(vocabulary.raw_ids, vocabulary.raw_names, strict=True))
    meanings = zip(vocabulary.prompts, vocabulary.prompt_to_class, vocabulary.prompt_to_raw, strict=True)
    for row, (prompt, class_id, raw_id) in enumerate(meanings):
        shown = prompt if prompt == prompt.strip() else repr(prompt)
        yield row, shown, names[class_id], raw_id, raw_names[raw_id]


def class_names(vocabulary: "Vocabulary") -> dict[int, str]:
    from uov_hf.configuration_uov import IGNORED

    return dict(enumerate(vocabulary.class_names)) | {IGNORED: "(ignored)"}


def _align(header: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Lines of a table; columns of numbers are flush right."""
    rows = list(rows)
    columns = [[name, *map(str, values)] for name, values in zip(header, zip(*rows, strict=True), strict=True)]
    is_number = [not isinstance(value, str) for value in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    alignments = [f"{'>' if number else '<'}{width}" for number, width in zip(is_number, widths, strict=True)]
    return ["  ".join(map(format, line, alignments)).rstrip() for line in zip(*columns, strict=True)]
