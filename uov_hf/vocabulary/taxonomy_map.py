"""Maps between taxonomies: the classes that both have in common, and the classes of each that belong to them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary.lines import Entry, read_yaml


MAPS = Path(__file__).with_name("maps")
NO_PARTNER = "(no partner)"  # in descriptions, beside the common classes


@dataclass(frozen=True)
class TaxonomyMap:
    """The common classes of taxonomies of which none needs to be a refinement of another.

    A class without a partner belongs to no common class: it is ignored where it is the truth.

    Args:
        path (`Path`): The file of the map.
        class_names (`list[str]`): The common classes.
        taxonomies (`dict[str, dict[str, int]]`):
            For each taxonomy the index in `class_names` of each of its classes; 255 for a class without a partner.
    """

    path: Path
    class_names: list[str]
    taxonomies: dict[str, dict[str, int]]

    def taxonomy_of(self, class_names: list[str]) -> str:
        """The name of the taxonomy that has exactly these classes, in any order.

        Raises:
            ValueError: No taxonomy of the map has them.
        """
        for name, classes in self.taxonomies.items():
            if set(classes) == set(class_names):
                return name
        nearest = max(self.taxonomies, key=lambda name: len(self.taxonomies[name].keys() & class_names))
        lacking = [name for name in class_names if name not in self.taxonomies[nearest]]
        others = [name for name in self.taxonomies[nearest] if name not in class_names]
        raise ValueError(
            f"No taxonomy of the map {self.path} has the classes {list(class_names)}. The nearest one, {nearest}, "
            f"lacks {lacking} and also has {others}. Give a map with these classes, or correct the names in this one."
        )

    def describe(self) -> dict[str, dict[str, list[str]]]:
        """The classes of each taxonomy by common class; those without a partner are under "(no partner)"."""
        names = dict(enumerate(self.class_names)) | {IGNORED: NO_PARTNER}
        return {
            common: {
                taxonomy: [name for name, of in classes.items() if of == index]
                for taxonomy, classes in self.taxonomies.items()
            }
            for index, common in names.items()
        }

    def to_common(self, class_names: list[str]) -> np.ndarray:
        """The common class of each id of a taxonomy.

        Args:
            class_names (`list[str]`): All classes of one of the taxonomies, in the order of their ids.

        Returns:
            `np.ndarray` of shape `(256,)`, uint8: the common class; 255 for no partner, and for 255 itself.

        Raises:
            ValueError: No taxonomy of the map has these classes.
        """
        classes = self.taxonomies[self.taxonomy_of(class_names)]
        return _lookup([classes[name] for name in class_names])

    def to_classes(self, source: list[str], target: list[str]) -> np.ndarray:
        """The class of another taxonomy for each id of the first.

        Args:
            source, target (`list[str]`): The classes of two of the taxonomies, in the order of their ids.

        Returns:
            `np.ndarray` of shape `(256,)`, uint8: the class of `target`; 255 for 255 and for a class without one,
            because it has no partner or `target` divides its common class.

        Raises:
            ValueError: No taxonomy of the map has these classes.
        """
        of_target = self.to_common(target)[: len(target)]
        partners = [np.flatnonzero(of_target == common) for common in range(len(self.class_names))]
        only = _lookup([int(ids[0]) if len(ids) == 1 else IGNORED for ids in partners])
        return only[self.to_common(source)]


def available_maps() -> list[str]:
    """The names of the maps that come with the package."""
    return sorted(path.stem for path in MAPS.glob("*.yaml"))


def load_map(name: str | Path) -> TaxonomyMap:
    """Read and check a map between taxonomies.

    Args:
        name (`str` or `Path`):
            One of `available_maps()`, or the path of a YAML file; docs/how_to/vocabulary.md has the format.

    Raises:
        ValueError: The name is unknown, or the file is wrong; the message has the file and the line.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else MAPS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(available_maps())
        raise ValueError(f"There is no map {str(name)!r}: expected one of {known}, or the path of a .yaml file.")
    return _parse_map(read_yaml(path, "a map"))


def find_map(one: list[str], other: list[str]) -> str | None:
    """The name of the map that comes with the package for the classes of two taxonomies; None without one."""
    wanted = {frozenset(one), frozenset(other)}
    for name in available_maps():
        if wanted == {frozenset(classes) for classes in load_map(name).taxonomies.values()}:
            return name
    return None


def _parse_map(content: Entry) -> TaxonomyMap:
    top = content.mapping(("taxonomies", "classes"))
    names = [item.text() for item in top["taxonomies"].items("a taxonomy")]
    if len(set(names)) < 2 or len(set(names)) < len(names) or "name" in names:
        raise top["taxonomies"].error(f"a map has two or more different taxonomies, none called 'name'; got {names}.")
    taxonomies: dict[str, dict[str, int]] = {name: {} for name in names}
    class_names: list[str] = []
    for item in top["classes"].items("a common class"):
        entry = item.mapping(("name",), tuple(names))
        name = entry.pop("name")
        common = IGNORED if name.is_null else _add_class(class_names, name)
        if not name.is_null and len(entry) < len(names):
            missing = ", ".join(taxonomy for taxonomy in names if taxonomy not in entry)
            raise item.error(f"the common class {name.text()!r} needs classes of {missing}; without a partner: null.")
        for taxonomy, members in entry.items():
            _add_members(taxonomies[taxonomy], members, common, taxonomy)
    for named, what in (
        (class_names, "common classes"),
        *((taxonomies[name], f"classes of {name}") for name in names),
    ):
        if len(named) > IGNORED:
            raise top["classes"].error(f"there may be {IGNORED} {what} at most, got {len(named)}.")
    return TaxonomyMap(content.path, class_names, taxonomies)


def _add_class(class_names: list[str], name: Entry) -> int:
    """Append the name of a common class; its index."""
    if name.text() in class_names:
        raise name.error(f"two common classes are called {name.text()!r}.")
    class_names.append(name.text())
    return len(class_names) - 1


def _add_members(classes: dict[str, int], members: Entry, common: int, taxonomy: str) -> None:
    for member in members.items("a class"):
        if member.text() in classes:
            raise member.error(f"the class {member.text()!r} of {taxonomy} occurs twice.")
        classes[member.text()] = common


def _lookup(classes: list[int]) -> np.ndarray:
    """`(256,)` uint8: the given classes, and 255 for all further ids."""
    lookup = np.full(IGNORED + 1, IGNORED, np.uint8)
    lookup[: len(classes)] = classes
    return lookup
