"""Taxonomies as validated data files: classes, colours, raw label ids, prompts, and maps between taxonomies."""

from pathlib import Path

from uov_hf.vocabulary.lines import Entry, read_yaml
from uov_hf.vocabulary.taxonomy import Vocabulary, parse_vocabulary
from uov_hf.vocabulary.taxonomy_map import TaxonomyMap, available_maps, find_map, load_map


__all__ = [
    "TEMPLATE",
    "TaxonomyMap",
    "Vocabulary",
    "available_maps",
    "available_vocabularies",
    "find_map",
    "load_map",
    "load_vocabulary",
]

TEMPLATE = Path(__file__).with_name("nuscenes.yaml")


def available_vocabularies() -> list[str]:
    """The names of the taxonomies that come with the package."""
    return sorted(path.stem for path in TEMPLATE.parent.glob("*.yaml"))


def load_vocabulary(name: str | Path) -> Vocabulary:
    """Read and check a taxonomy.

    Args:
        name (`str` or `Path`):
            One of `available_vocabularies()`, or the path of a YAML file; docs/how_to/vocabulary.md has the format.

    Raises:
        ValueError: The name is unknown, or the file is wrong; the message has the file and the line.
    """
    return parse_vocabulary(_open(name))


def _open(name: str | Path) -> Entry:
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else TEMPLATE.with_name(f"{name}.yaml")
    if not path.is_file():
        known = ", ".join(available_vocabularies())
        raise ValueError(
            f"There is no vocabulary {str(name)!r}: expected one of {known}, or the path of a .yaml file."
        )
    return read_yaml(path, "a vocabulary")
