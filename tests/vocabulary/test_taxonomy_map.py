"""Maps between taxonomies: common classes of both, in both directions, and maps of one's own."""

from itertools import combinations

import numpy as np
import pytest

from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary import available_maps, available_vocabularies, find_map, load_map, load_vocabulary


def names_of(taxonomy):
    return load_vocabulary(taxonomy).class_names


def meaning(map_name, source, target):
    """Class of `target` by class of `source`; None without one."""
    lookup = load_map(map_name).to_classes(names_of(source), names_of(target))
    targets = dict(enumerate(names_of(target)))
    return {name: targets.get(int(lookup[row])) for row, name in enumerate(names_of(source))}


def test_there_is_a_map_for_every_two_taxonomies_and_it_has_all_their_classes():
    pairs = list(combinations(available_vocabularies(), 2))
    assert available_maps() == [f"{one}_{other}" for one, other in pairs] and len(pairs) == 6
    for one, other in pairs:
        found = load_map(f"{one}_{other}")
        assert list(found.taxonomies) == [one, other]
        for taxonomy in (one, other):
            assert set(found.taxonomies[taxonomy]) == set(names_of(taxonomy)), (one, other, taxonomy)
            assert set(range(len(found.class_names))) <= set(found.to_common(names_of(taxonomy)))
        assert find_map(names_of(one), names_of(other)) == find_map(names_of(other), names_of(one)) == found.path.stem
    assert find_map(names_of(one), names_of(one)) is None


@pytest.mark.parametrize("name", available_maps())
def test_no_common_class_mixes_things_and_stuff_but_where_signs_are_built(name):
    found = load_map(name)
    for taxonomy in found.taxonomies:
        common, is_thing = found.to_common(names_of(taxonomy)), load_vocabulary(taxonomy).is_thing
        for index, common_name in enumerate(found.class_names):
            kinds = set(is_thing[np.flatnonzero(common[: len(is_thing)] == index)].tolist())
            # Barriers and signs have cuboids in PandaSet; other taxonomies have them among what is built.
            assert len(kinds) == 1 or common_name in ("manmade", "fence or pole"), (taxonomy, common_name)


@pytest.mark.parametrize(
    ("one", "of_one", "other", "of_other"),
    [
        # A ridden bicycle is a bicycle with a rider in Cityscapes, a bicyclist in SemanticKITTI.
        ("cityscapes", {"bicycle", "rider"}, "semantic_kitti", {"bicyclist"}),
        # nuScenes has traffic islands in flat.other, PandaSet in Ground.
        ("nuscenes", {"other_flat", "terrain"}, "pandaset", {"ground"}),
        ("pandaset", {"ground"}, "semantic_kitti", {"other-ground", "terrain"}),
    ],
)
def test_points_that_the_datasets_divide_differently_are_in_one_common_class(one, of_one, other, of_other):
    taxonomies = load_map(f"{one}_{other}").taxonomies
    common = {taxonomies[one][name] for name in of_one} | {taxonomies[other][name] for name in of_other}
    assert len(common) == 1 and common != {IGNORED}


def test_a_finer_or_equal_class_becomes_that_of_the_other_taxonomy_and_a_coarser_one_none():
    kitti, cityscapes = "semantic_kitti", "cityscapes"
    fine_to_coarse = meaning("cityscapes_semantic_kitti", kitti, cityscapes)
    assert (fine_to_coarse["trunk"], fine_to_coarse["car"]) == ("vegetation", "car")
    assert fine_to_coarse["other-vehicle"] is None  # a bus or a train
    assert fine_to_coarse["parking"] is None  # without a partner
    coarse_to_fine = meaning("cityscapes_semantic_kitti", cityscapes, kitti)
    assert (coarse_to_fine["bus"], coarse_to_fine["wall"]) == ("other-vehicle", "fence")
    assert coarse_to_fine["rider"] is coarse_to_fine["vegetation"] is coarse_to_fine["sky"] is None
    assert meaning("nuscenes_pandaset", "pandaset", "nuscenes")["driveway"] == "driveable_surface"
    to_nuscenes = meaning("nuscenes_semantic_kitti", kitti, "nuscenes")
    assert (to_nuscenes["bicyclist"], to_nuscenes["motorcyclist"]) == ("bicycle", "motorcycle")


def test_ids_follow_the_order_of_the_given_classes_and_ignored_stays_ignored():
    found, backwards = load_map("nuscenes_semantic_kitti"), names_of("nuscenes")[::-1]
    assert found.to_common(backwards)[:16].tolist() == found.to_common(names_of("nuscenes"))[15::-1].tolist()
    assert (found.to_common(backwards)[16:] == IGNORED).all() and found.to_common(backwards).shape == (256,)
    same = found.to_classes(names_of("nuscenes"), names_of("nuscenes"))
    assert same[names_of("nuscenes").index("car")] == names_of("nuscenes").index("car")


OWN = """\
taxonomies: [yard, port]
classes:
  - {name: vehicle, yard: [car, forklift], port: [vehicle]}
  - {name: ground, yard: [ground], port: [asphalt, gravel]}
  - {name: null, yard: [wall]}
"""


def written(tmp_path, text):
    path = tmp_path / "yard_port.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_map_of_ones_own(tmp_path):
    found = load_map(written(tmp_path, OWN))
    assert found.to_common(["car", "forklift", "ground", "wall"])[:4].tolist() == [0, 0, 1, 255]
    assert found.to_classes(["car", "forklift", "ground", "wall"], ["gravel", "vehicle", "asphalt"])[:4].tolist() == [
        *(1, 1),
        *(255, 255),
    ]
    assert found.describe()["(no partner)"] == {"yard": ["wall"], "port": []}
    with pytest.raises(ValueError, match=r"nearest one, yard, lacks \['crane'\] and also has \['forklift', 'wall'\]"):
        found.to_common(["car", "crane", "ground"])


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[yard, port]", "[yard]", 1, "two or more different taxonomies"),
        ("[yard, port]", "[yard, yard]", 1, "two or more different taxonomies"),
        ("[yard, port]", "[yard, name]", 1, "none called 'name'"),
        (", port: [vehicle]", "", 3, "'vehicle' needs classes of port; without a partner: null"),
        ("port: [vehicle]", "harbour: [vehicle]", 3, "may have `yard`, `port`, got 'harbour'"),
        ("yard: [wall]", "yard: [car]", 5, "the class 'car' of yard occurs twice"),
        ("name: ground", "name: vehicle", 4, "two common classes are called 'vehicle'"),
        ("[asphalt, gravel]", "asphalt", 4, "`port` to be a list of one or more entries"),
    ],
)
def test_a_wrong_map_is_refused_with_its_line(tmp_path, old, new, line, message):
    assert old in OWN
    with pytest.raises(ValueError, match=f"yard_port.yaml, line {line}: .*{message}"):
        load_map(written(tmp_path, OWN.replace(old, new, 1)))


def test_an_unknown_map_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no map 'auto': expected one of cityscapes_nuscenes, .* or the path"):
        load_map("auto")
