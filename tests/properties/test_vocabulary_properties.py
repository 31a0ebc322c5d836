"""Properties of vocabularies and maps: what is read is consistent, anything else is refused with file and line."""

import copy
import re

import numpy as np
import yaml
from hostile_arrays import INTEGERS, anything, generators, ids, layouts, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.vocabulary import Vocabulary, available_vocabularies, load_map, load_vocabulary
from uov_hf.vocabulary.taxonomy_map import TaxonomyMap


WORDS = st.text("abc _-'é中", min_size=1, max_size=5).filter(lambda word: bool(word.strip()))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), WORDS, st.just(""), st.just("2024-02-31")
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
SHIPPED = [load_vocabulary(name) for name in available_vocabularies()]


@st.composite
def vocabularies(draw: st.DrawFn) -> dict:
    """A valid vocabulary as a dictionary."""
    names = draw(st.lists(WORDS, min_size=1, max_size=5, unique_by=str))
    content: dict = {"name": draw(WORDS), "classes": [{"name": name} for name in names]}
    for entry in content["classes"]:
        if draw(st.booleans()):
            entry["color"] = draw(st.lists(st.integers(0, 255), min_size=3, max_size=3))
        if draw(st.booleans()):
            entry["is_thing"] = draw(st.booleans())
        entry["prompts"] = draw(st.lists(WORDS, min_size=1, max_size=3))
    if draw(st.booleans()):
        raw = draw(st.lists(st.integers(0, 65535), min_size=len(names) + 1, max_size=len(names) + 1, unique=True))
        content["raw_classes"] = [
            {"name": f"raw {number}", "class": name, "id": number}
            for name, number in zip([*names, None], raw, strict=True)
        ]
    if draw(st.booleans()):
        content["background"] = draw(st.lists(WORDS, min_size=1, max_size=2))
    return content


def places_in(content: object, path: tuple = ()) -> list[tuple]:
    children = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else []
    )
    return [path, *(place for key, value in children for place in places_in(value, (*path, key)))]


def change(draw: st.DrawFn, content: dict) -> object:
    """The content with one part replaced, removed or repeated."""
    content = copy.deepcopy(content)
    *parents, last = draw(st.sampled_from(places_in(content)[1:]))
    parent = content
    for key in parents:
        parent = parent[key]
    kind = draw(st.sampled_from(["replace", "remove", "repeat"]))
    if kind == "replace":
        parent[last] = draw(TREES)
    elif kind == "remove":
        del parent[last]
    elif isinstance(parent, list):
        parent.append(parent[last])
    else:
        parent[draw(WORDS)] = parent[last]
    return content


def read(load, content: object, folder) -> Vocabulary | TaxonomyMap | None:
    """What a file with this content is read as; None if it is refused with its name and a line."""
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        return load(path)
    except ValueError as error:
        assert re.match(rf"{re.escape(str(path))}(, line \d+:| is not)", str(error)), error
        return None


def check_vocabulary(vocabulary: Vocabulary) -> None:
    num_classes = len(vocabulary.class_names)
    assert 0 < num_classes <= 255 and len(set(vocabulary.class_names)) == num_classes
    assert vocabulary.colors.shape == (num_classes, 3) and vocabulary.colors.dtype == np.uint8
    assert vocabulary.is_thing.shape == (num_classes,) and vocabulary.is_thing.dtype == bool
    prompts = len(vocabulary.prompts)
    for array in (vocabulary.prompt_groups, vocabulary.prompt_to_raw, vocabulary.prompt_to_class):
        assert array.shape == (prompts,) and array.dtype == np.int64
    assert set(range(num_classes)) <= set(vocabulary.prompt_to_class.tolist()) <= {*range(num_classes), 255}
    assert set(vocabulary.classes_of(vocabulary.raw_ids).tolist()) <= {*range(num_classes), 255}


@given(vocabularies())
def test_a_vocabulary_has_the_classes_and_prompts_of_its_file(tmp_path_factory, content):
    vocabulary = read(load_vocabulary, content, tmp_path_factory.getbasetemp())
    assert vocabulary is not None or "background" in content and "raw_classes" not in content or _strips(content)
    if vocabulary is not None:
        check_vocabulary(vocabulary)
        assert vocabulary.class_names == [entry["name"] for entry in content["classes"]]
        prompts = [prompt for entry in content["classes"] for prompt in entry["prompts"]]
        assert vocabulary.prompts == prompts + content.get("background", [])


def _strips(content: dict) -> bool:
    """Whether a phrase may be read as another one: YAML has words for true, false and null."""
    return any(len(word.strip()) < len(word) for word in re.findall(r"'([^']*)'", repr(content)))


@given(vocabularies(), st.data())
def test_a_changed_vocabulary_is_consistent_or_refused_with_its_line(tmp_path_factory, content, data):
    vocabulary = read(load_vocabulary, change(data.draw, content), tmp_path_factory.getbasetemp())
    if vocabulary is not None:
        check_vocabulary(vocabulary)


@given(TREES)
def test_any_tree_is_refused_with_its_line(tmp_path_factory, content):
    assert read(load_vocabulary, content, tmp_path_factory.getbasetemp()) is None
    assert read(load_map, content, tmp_path_factory.getbasetemp()) is None


@st.composite
def maps(draw: st.DrawFn) -> dict:
    members = [f"member {number}" for number in range(12)]
    classes: list[dict] = []
    for number in range(draw(st.integers(1, 3))):
        classes.append(
            {
                "name": f"common {number}",
                "one": [members.pop()],
                "two": [members.pop(), members.pop()][: draw(st.integers(1, 2))],
            }
        )
    if draw(st.booleans()):
        classes.append({"name": None, "one": [members.pop()]})
    return {"taxonomies": ["one", "two"], "classes": classes}


@given(maps(), st.booleans(), st.data())
def test_a_map_leads_to_classes_that_exist(tmp_path_factory, content, as_it_is, data):
    content = content if as_it_is else change(data.draw, content)
    taxonomy_map = read(load_map, content, tmp_path_factory.getbasetemp())
    assert taxonomy_map is not None or not as_it_is
    if taxonomy_map is None:
        return
    for classes in taxonomy_map.taxonomies.values():
        common = taxonomy_map.to_common(list(classes))
        assert common.shape == (256,) and set(common.tolist()) <= {*range(len(taxonomy_map.class_names)), 255}
        for other in taxonomy_map.taxonomies.values():
            target = taxonomy_map.to_classes(list(classes), list(other))
            assert target.shape == (256,) and set(target.tolist()) <= {*range(len(other)), 255}


@given(st.sampled_from(SHIPPED), st.integers(0, 30), generators(), st.data())
def test_raw_ids_become_the_classes_of_the_table(vocabulary, size, generator, data):
    raw = data.draw(
        layouts(generator.choice(vocabulary.raw_ids, size).astype(data.draw(st.sampled_from(["i4", "i8"]))))
    )
    classes = result_or_error([], vocabulary.classes_of, raw)
    table = dict(zip(vocabulary.raw_ids.tolist(), vocabulary.classes_of(vocabulary.raw_ids).tolist(), strict=True))
    assert classes.dtype == np.uint8 and classes.tolist() == [table[number] for number in raw.tolist()]


@given(st.sampled_from(SHIPPED), st.one_of(anything([(5,), (2, 3), (0,)]), ids(5, 300, INTEGERS[2:])))
def test_any_raw_ids_become_classes_or_an_error_names_them(vocabulary, raw):
    try:
        classes = result_or_error(["raw_labels"], vocabulary.classes_of, raw)
    except AssertionError as error:
        assert "The labels contain ids that" in str(error)
        return
    assert classes is None or classes.shape == np.shape(raw)


@given(
    st.sampled_from(SHIPPED),
    st.lists(st.one_of(WORDS, st.sampled_from(["car", "road, route", "Person", "tree"])), max_size=5),
)
def test_labels_of_a_model_become_prompts_or_are_named(vocabulary, labels):
    try:
        found = vocabulary.with_model_labels(labels, "a model")
    except ValueError as error:
        assert "a model" in str(error)
    else:
        check_vocabulary(found)
        assert found.prompts[: len(labels)] == labels
