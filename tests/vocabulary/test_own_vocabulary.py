"""A vocabulary of one's own is ten lines, and a wrong one is refused with its file and line."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from uov_hf.vocabulary import TEMPLATE, load_vocabulary


TEN_LINES = """\
name: yard
classes:
  - name: vehicle
    prompts: [car, truck, bus, forklift]
    is_thing: true
  - name: wall
    prompts: [wall, fence]
  - name: ground
    prompts: [asphalt, gravel]
background: [sky, clouds]
"""


def test_the_ten_lines_are_those_of_the_documentation():
    document = Path(__file__).parents[2] / "docs/how_to/vocabulary.md"
    assert len(TEN_LINES.splitlines()) == 10
    assert f"```yaml\n# yard.yaml\n{TEN_LINES}```" in document.read_text(encoding="utf-8")


def written(tmp_path, text: str):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_ten_lines_are_a_vocabulary(tmp_path):
    ours = load_vocabulary(written(tmp_path, TEN_LINES))
    assert (ours.name, ours.class_names) == ("yard", ["vehicle", "wall", "ground"])
    assert ours.prompts == ["car", "truck", "bus", "forklift", "wall", "fence", "asphalt", "gravel", "sky", "clouds"]
    assert ours.prompt_to_class.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 255, 255]
    assert ours.prompt_groups.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 4]
    assert ours.raw_names == ["vehicle", "wall", "ground", "(background)"]
    assert ours.raw_to_class.tolist() == [0, 1, 2, 255] and ours.raw_ids.tolist() == [0, 1, 2, 3]
    assert ours.is_thing.tolist() == [True, False, False]


def test_generated_colors_are_far_from_each_other(tmp_path):
    classes = "".join(f"  - {{name: class {index}, prompts: [thing {index}]}}\n" for index in range(20))
    colors = load_vocabulary(written(tmp_path, f"name: many\nclasses:\n{classes}")).colors.astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(20, dtype=int)
    assert distances.min() > 25


def test_prompts_of_a_class_mean_the_first_of_its_raw_classes(tmp_path):
    raw_classes = """\
raw_classes:
  - {id: 40, name: old ground, class: ground}
  - {id: 7, name: van, class: vehicle}
  - {id: 9, name: truck, class: vehicle}
  - {id: 0, name: nothing, class: null}
  - {id: 12, name: man, class: wall}
"""
    ours = load_vocabulary(written(tmp_path, TEN_LINES + raw_classes))
    assert ours.prompt_to_raw.tolist() == [7, 7, 7, 7, 12, 12, 40, 40, 0, 0]
    assert ours.classes_of(np.array([9, 40, 0])).tolist() == [0, 2, 255]
    assert ours.raw_to_class.shape == (41,) and ours.raw_to_class[8] == 255


# what is replaced in the ten lines, by what, the line that is named, the message
WRONG = [
    ("is_thing: true", "isthing: true", 5, "may have `color`, `is_thing`, got 'isthing'"),
    ("name: yard\n", "", 1, "`name` is missing"),
    ("    prompts: [asphalt, gravel]\n", "", 8, "`prompts` is missing"),
    (TEN_LINES[11:], "classes: []\n", 2, "`classes` to be a list of one or more entries, got an empty list"),
    ("[car, truck,", "[car, '',", 4, "a prompt to be a phrase .*, got nothing"),
    ("[asphalt, gravel]", "[asphalt, 1990]", 9, "need quotes.*got '1990'"),
    ("[asphalt, gravel]", "[yes, gravel]", 9, "need quotes.*got 'yes'"),
    ("[asphalt, gravel]", "asphalt", 9, "`prompts` to be a list .*got 'asphalt'"),
    ("[asphalt, gravel]", "[!!python/name:os.system '', gravel]", 9, "a prompt to be a phrase"),
    ("is_thing: true", "is_thing: maybe", 5, "`is_thing` to be true or false, got 'maybe'"),
    ("is_thing: true", "color: [0, 0, 300]", 5, "three numbers 0-255"),
    ("is_thing: true", f"color: [0x{'F' * 500}, 0, 0]", 5, "a part of a color to be a whole number of 64 bits"),
    ("is_thing: true", f"color: [0x{'F' * 5000}, 0, 0]", 5, "a part of a color to be a whole number, got"),
    ("name: yard", r'name: "\uD800"', 1, r"`name` to be text, got half of a surrogate pair in '.ud800'"),
    ("is_thing: true", "color: red", 5, "`color` to be a list .*got 'red'"),
    ("name: ground", "name: wall", 8, "different names, got 'wall' twice"),
    ("name: yard\n", "name: yard\nname: garden\n", 2, "'name' occurs twice"),
    ("  - name: wall\n    prompts", "  - wall\n  - name: wall\n    prompts", 6, "a class with `name`, `prompts`"),
    ("forklift]", "forklift", 5, "this is not YAML"),
    ("    is_thing", "\tis_thing", 5, "this is not YAML"),
]
RAW_CLASSES = ("raw_classes:\n  - {id: 4, name: a, class: null}\n", "  - {id: 4, name: b, class: null}")
# a section that is added from line 11 on, the line that is named, the message
WRONG_SECTIONS = [
    ("raw_classes:\n  - {name: a, class: human}", 12, "no class 'human'"),
    ("raw_classes:\n  - {name: a, class: null}", 3, "no entry of `raw_classes` is of class 'vehicle'"),
    (f"{RAW_CLASSES[0]}{RAW_CLASSES[1].replace('id: 4, ', '')}", 13, "all raw classes have an `id`, or none"),
    ("".join(RAW_CLASSES), 13, "two raw classes have the id 4"),
    ("raw_classes:\n  - {id: -1, name: a, class: ground}", 12, "0 to 65535, or -1 for what is always ignored"),
    ("prompt_groups:\n  - {raw_class: vehicle, prompts: [car]}", 4, "`color`, `is_thing`, got 'prompts'"),
    ("model_labels:\n  - {class: human, labels: [person]}", 12, "no class 'human'"),
    ("model_labels:\n  - {class: wall, labels: [Fence, ' fence, hedge']}", 12, "has the label 'fence' twice"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), WRONG)
def test_what_is_wrong_is_refused_with_its_line(tmp_path, old, new, line, message):
    assert old in TEN_LINES
    path = written(tmp_path, TEN_LINES.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"own.yaml, line {line}: .*{message}"):
        load_vocabulary(path)


@pytest.mark.parametrize(("section", "line", "message"), WRONG_SECTIONS)
def test_a_section_that_contradicts_the_classes_is_refused_with_its_line(tmp_path, section, line, message):
    path = written(tmp_path, TEN_LINES + section + "\n")
    with pytest.raises(ValueError, match=f"own.yaml, line {line}: .*{message}"):
        load_vocabulary(path)


@pytest.mark.parametrize(
    ("raw_class", "line_of", "message"),
    [
        ("trailer", "raw_class: vehicle.trailer", "'trailer', which `raw_classes` does not have"),
        ("vehicle.truck", "name: trailer", "no group of `prompt_groups` is of class 'trailer'"),
    ],
)
def test_prompt_groups_that_do_not_fit_the_classes_are_refused(tmp_path, raw_class, line_of, message):
    text = TEMPLATE.read_text(encoding="utf-8")
    line = text[: text.index(line_of)].count("\n") + 1
    path = written(tmp_path, text.replace("raw_class: vehicle.trailer", f"raw_class: {raw_class}"))
    with pytest.raises(ValueError, match=f"own.yaml, line {line}: .*{message}"):
        load_vocabulary(path)


def test_a_file_that_is_no_text_or_empty_is_refused(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ValueError, match="empty.yaml, line 1: expected a vocabulary, got an empty file"):
        load_vocabulary(tmp_path / "empty.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(ValueError, match="bytes.yaml is not a YAML file"):
        load_vocabulary(tmp_path / "bytes.yaml")
    with pytest.raises(ValueError, match="no vocabulary '.*away.yaml': expected one of cityscapes, nuscenes"):
        load_vocabulary(tmp_path / "away.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: yard", r'name: "\UFFFFFFFF"'),
        ("name: yard", r'name: "\U00110000"'),
        ("name: yard", f"%YAML {'1' * 5000}.1\n---\nname: yard"),
    ],
    ids=["no number of C", "no character", "version"],
)
def test_an_error_of_python_about_the_text_names_the_file(tmp_path, old, new):
    path = written(tmp_path, TEN_LINES.replace(old, new, 1))
    with pytest.raises(ValueError, match="own.yaml is not a YAML file: "):
        load_vocabulary(path)


def test_a_long_number_to_the_base_60_is_refused_unread(tmp_path, monkeypatch):
    """PyYAML took a time quadratic in its length."""
    integers = "tag:yaml.org,2002:int"
    monkeypatch.setitem(yaml.SafeLoader.yaml_constructors, integers, lambda *_: pytest.fail("it is read"))
    path = written(tmp_path, TEN_LINES.replace("name: yard", f"name: 1{':1' * 1000}"))
    with pytest.raises(ValueError, match="own.yaml, line 1: expected `name` to be a phrase"):
        load_vocabulary(path)


def test_aliases_that_repeat_too_many_values_are_refused(tmp_path):
    """13 KB were 375,000 prompts."""
    prompts = f"[{', '.join(['car'] * 1500)}]"
    classes = "".join(f"  - {{name: class {index}, prompts: *a}}\n" for index in range(250))
    path = written(tmp_path, f"name: many\nclasses:\n  - {{name: car, prompts: &a {prompts}}}\n{classes}")
    with pytest.raises(ValueError, match="own.yaml is not a YAML file: more than 100,000 values, because aliases"):
        load_vocabulary(path)
    few = written(tmp_path, TEN_LINES.replace("[wall, fence]", "&a [wall, fence]").replace("[sky, clouds]", "*a"))
    assert load_vocabulary(few).prompts[-2:] == ["wall", "fence"]


MODEL_LABELS = """\
model_labels:
  - {class: vehicle, labels: [Auto, van]}
  - {class: null, labels: [heaven]}
"""


def test_a_models_labels_become_prompts_and_every_class_keeps_one(tmp_path):
    plain = load_vocabulary(written(tmp_path, TEN_LINES + MODEL_LABELS))
    ours = plain.with_model_labels(["wall", "auto", "Heaven, sky", "van"], "a model")
    assert ours.prompts == ["wall", "auto", "Heaven, sky", "van", "asphalt"]  # no label is of class ground
    assert ours.prompt_to_class.tolist() == [1, 0, 255, 0, 2]
    assert ours.prompt_to_raw.tolist() == [1, 0, 3, 0, 2] and ours.prompt_groups.tolist() == [0, 1, 2, 3, 4]
    assert (ours.class_names, ours.raw_names) == (plain.class_names, plain.raw_names)


def test_labels_without_a_class_are_refused_with_the_way_to_add_them(tmp_path):
    ours = load_vocabulary(written(tmp_path, TEN_LINES + MODEL_LABELS))
    with pytest.raises(ValueError, match=r"'yard' has no class for 2 of the 3 labels of a model: 'bed', 'dog'\. Copy"):
        ours.with_model_labels(["bed", "auto", "dog"], "a model")
    with pytest.raises(ValueError, match=r"No label of a model belongs to a class of the vocabulary 'yard'"):
        ours.with_model_labels(["heaven"], "a model")
    without_null = load_vocabulary(
        written(tmp_path, TEN_LINES.replace("background: [sky, clouds]\n", "") + MODEL_LABELS)
    )
    assert without_null.with_model_labels(["auto", "heaven"], "a model").prompt_to_raw.tolist()[:2] == [0, -1]
