"""The labels of published closed-set models, and their classes in the vocabularies of the package."""

from functools import cache

import pytest

from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary import load_map, load_vocabulary


load = cache(load_vocabulary)
VOCABULARIES = ["nuscenes", "semantic_kitti", "pandaset"]
CITYSCAPES = load_vocabulary("cityscapes").class_names
MAPILLARY = [
    "Bird", "Ground Animal", "Curb", "Fence", "Guard Rail", "Barrier", "Wall", "Bike Lane", "Crosswalk - Plain",
    "Curb Cut", "Parking", "Pedestrian Area", "Rail Track", "Road", "Service Lane", "Sidewalk", "Bridge", "Building",
    "Tunnel", "Person", "Bicyclist", "Motorcyclist", "Other Rider", "Lane Marking - Crosswalk",
    "Lane Marking - General", "Mountain", "Sand", "Sky", "Snow", "Terrain", "Vegetation", "Water", "Banner", "Bench",
    "Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box", "Mailbox", "Manhole",
    "Phone Booth", "Pothole", "Street Light", "Pole", "Traffic Sign Frame", "Utility Pole", "Traffic Light",
    "Traffic Sign (Back)", "Traffic Sign (Front)", "Trash Can", "Bicycle", "Boat", "Bus", "Car", "Caravan",
    "Motorcycle", "On Rails", "Other Vehicle", "Trailer", "Truck", "Wheeled Slow", "Car Mount", "Ego Vehicle",
]  # fmt: skip
ADE20K = [
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed ", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane",
    "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
    "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
    "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
    "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
    "bulletin board", "shower", "radiator", "glass", "clock", "flag",
]  # fmt: skip
ADE20K_OF_MASKFORMER = ["road, route", "window ", "sidewalk, pavement", "earth, ground", "minibike, motorbike", "rail"]


def classes(vocabulary: str, labels: list[str]) -> dict[str, str | None]:
    ours = load(vocabulary)
    class_ids = ours.with_model_labels(labels, "a model").prompt_to_class[: len(labels)].tolist()
    names = [None if class_id == IGNORED else ours.class_names[class_id] for class_id in class_ids]
    return dict(zip(labels, names, strict=True))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize(("labels", "number"), [(CITYSCAPES, 19), (MAPILLARY, 65), (ADE20K, 150)])
def test_every_label_of_a_published_model_has_an_entry(vocabulary, labels, number):
    assert len(set(labels)) == number
    found = classes(vocabulary, labels)
    assert {"car", "truck", "bicycle", "sidewalk", "vegetation"} <= set(found.values())


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_names_of_maskformers_ade20k_have_entries(vocabulary):
    assert None not in classes(vocabulary, ADE20K_OF_MASKFORMER).values()


def test_no_entry_belongs_to_a_label_that_no_published_model_has():
    published = {name.split(",")[0].strip().lower() for name in CITYSCAPES + MAPILLARY + ADE20K + ADE20K_OF_MASKFORMER}
    published |= {"unlabeled", "street lamp", "trash can", "tv", "plane", "clothes", "pool", "falls", "tub"}
    for vocabulary in VOCABULARIES:
        assert not set(load(vocabulary).model_labels) - published


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_cityscapes_labels_mean_what_the_map_between_the_taxonomies_means(vocabulary):
    common = load_map(f"cityscapes_{vocabulary}").taxonomies
    agree = [
        common["cityscapes"][label] == common[vocabulary][name]
        for label, name in classes(vocabulary, CITYSCAPES).items()
        if name is not None and common["cityscapes"][label] != IGNORED
    ]
    assert all(agree) and len(agree) >= 15


@pytest.mark.parametrize(
    ("label", "nuscenes", "semantic_kitti", "pandaset"),
    [
        ("Bicyclist", "bicycle", "bicyclist", "bicycle"),
        ("Lane Marking - General", "driveable_surface", "road", "road"),
        ("Parking", "driveable_surface", "parking", "road"),
        ("Guard Rail", "manmade", "fence", "barrier"),
        ("Barrier", "barrier", "fence", "barrier"),
        ("Utility Pole", "manmade", "pole", "other_static_object"),
        ("Traffic Light", "manmade", None, "other_static_object"),
        ("On Rails", None, "other-vehicle", "train"),
        ("Trailer", "trailer", "other-vehicle", "towed_object"),
        ("van", "car", "car", "car"),
        ("minibike", "motorcycle", "motorcycle", "motorcycle"),
        ("Sky", None, None, None),
        ("refrigerator", None, None, None),
    ],
)
def test_a_label_has_the_class_of_each_taxonomy(label, nuscenes, semantic_kitti, pandaset):
    found = [classes(vocabulary, [label, "car"])[label] for vocabulary in VOCABULARIES]
    assert found == [nuscenes, semantic_kitti, pandaset]


def test_a_model_for_a_taxonomy_needs_no_table():
    assert classes("cityscapes", [label.upper() for label in CITYSCAPES]) == {n.upper(): n for n in CITYSCAPES}
