"""Official checkpoints become checkpoints of this package, by strict names and a proof, or are refused."""

import os
import pickle
import re
import shlex
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch
from official_tensors import FULL, SMALL, official_tensors

from uov_hf import UOVConfig, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.convert import convert_checkpoint
from uov_hf.convert.minkowski import OfficialNetwork, run_minkunet
from uov_hf.convert.names import backbone_names, head_names
from uov_hf.convert.official_files import STAND_INS, read_official
from uov_hf.vocabulary import load_vocabulary


SETTINGS = {"voxel_size": 0.1, "cylindrical_coordinates": True, "bn_momentum": 0.02}
LAYOUTS = {
    "the official scripts'": lambda tensors: {"model_points": tensors, "config": SETTINGS, "epoch": 3},
    "with data-parallel names": lambda tensors: {"model_points": prefixed("module.", tensors)},
    "Lightning's, of pre-training": lambda tensors: {
        "state_dict": prefixed("model_points.", tensors) | {"model_images.conv1.weight": torch.zeros(2)}
    },
    "Lightning's, of the other stages": lambda tensors: {"state_dict": prefixed("model.", tensors)},
    "bare": lambda tensors: tensors,
}


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def save(folder, content):
    path = folder / "official.pt"
    torch.save(content, path)
    return path


def convert(path, folder, **options):
    config = UOVConfig(stem_channels=SMALL["stem"], hidden_sizes=SMALL["widths"], depths=SMALL["depths"])
    return convert_checkpoint(path, folder / "converted", config=config, **options)


def test_the_published_network_has_the_374_tensors_of_the_table():
    tensors = official_tensors(768, **FULL)
    names = [(old, f"backbone.{new}", change) for old, new, change in backbone_names(UOVConfig())]
    names += head_names("point_projection.weight", "point_projection.bias")
    assert sorted(old for old, _, _ in names) == sorted(tensors)
    with torch.device("meta"):
        expected = UOVModel(UOVConfig()).state_dict()
    shapes = {new: tuple(change(tensors[old]).shape) for old, new, change in names}
    assert len(names) == 374
    assert shapes == {name: tuple(value.shape) for name, value in expected.items() if "prompt" not in name}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_files_is_read(tmp_path, layout):
    tensors = official_tensors(64, **SMALL)
    done = convert(save(tmp_path, LAYOUTS[layout](tensors)), tmp_path)
    model = UOVModel.from_pretrained(done.folder)
    assert done.architecture == "UOVModel" and done.difference < 1e-12
    assert torch.equal(model.point_projection.weight, tensors["final.kernel"].T)
    assert model.config.batch_norm_momentum == (0.02 if layout.startswith("the official") else 0.05)
    assert UOVProcessor.from_pretrained(done.folder).feature_extractor.coordinate_system == "cylindrical"


@pytest.mark.parametrize(
    "num_outputs, taxonomy, scaling", [(17, "nuscenes", "raw"), (20, "semantic_kitti", "unit_plus_one")]
)
def test_a_head_with_void_names_the_classes_of_its_dataset_and_void_last(tmp_path, num_outputs, taxonomy, scaling):
    tensors = official_tensors(num_outputs, **SMALL)
    done = convert(save(tmp_path, {"model_points": tensors}), tmp_path)
    model = UOVForSemanticSegmentation.from_pretrained(done.folder).eval()
    assert list(model.config.id2label.values()) == load_vocabulary(taxonomy).class_names
    assert UOVProcessor.from_pretrained(done.folder).feature_extractor.intensity_scaling == scaling
    rng = np.random.default_rng(1)
    coords = np.unique(np.insert(rng.integers(-5, 5, (60, 3)), 0, 0, axis=1), axis=0)
    features = rng.uniform(0, 1, (len(coords), 1)).astype(np.float32)
    _, official = run_minkunet({name: value.numpy() for name, value in tensors.items()}, coords, features)
    voxels = torch.from_numpy(coords).int(), torch.from_numpy(features)
    with torch.no_grad():
        logits = model.get_voxel_logits(*voxels)
        with_void = model.get_voxel_logits(*voxels, include_void=True)
    np.testing.assert_allclose(logits, official[:, 1:], rtol=0, atol=1e-4)
    np.testing.assert_allclose(with_void, np.roll(official, -1, axis=1), rtol=0, atol=1e-4)


def test_the_emulation_counts_offsets_with_the_first_axis_fastest():
    tensors = official_tensors(64, **SMALL)
    tensors = {name: value.numpy() for name, value in tensors.items()}
    kernel = np.zeros((27, 1, SMALL["stem"]))
    kernel[14] = 1.0  # the neighbour one step up the first axis
    network = OfficialNetwork({**tensors, "conv0p1s1.kernel": kernel})
    coords = np.array([[0, -1, 3, 3], [0, 0, 3, 3], [0, -1, 4, 3]])
    found = network.same("conv0p1s1", coords, np.array([[1.0], [2.0], [4.0]]), 1)
    assert found[:, 0].tolist() == [2.0, 0.0, 0.0]


def test_a_wrong_order_of_axes_does_not_pass_the_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "uov_hf.convert.names.cube_kernel",
        lambda kernel: kernel.unflatten(0, (round(len(kernel) ** (1 / 3)),) * 3).permute(4, 0, 1, 2, 3).contiguous(),
    )
    with pytest.raises(ValueError, match="official.pt: the converted network differs from MinkowskiEngine's rules"):
        convert(save(tmp_path, official_tensors(64, **SMALL)), tmp_path)
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["final.bias", "final.kernel", "bn0.bn.bias"])
def test_a_network_with_numbers_that_are_not_finite_is_refused(tmp_path, name, value):
    """The largest difference from the emulation was computed without NaN, so that a head of NaN passed the proof."""
    tensors = official_tensors(17, **SMALL)
    tensors[name] = tensors[name] + value
    with pytest.raises(ValueError, match=f"official.pt: expected finite numbers, but {name} has others"):
        convert(save(tmp_path, tensors), tmp_path)
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("change", [torch.Tensor.bfloat16, torch.Tensor.half, torch.nn.Parameter])
def test_weights_of_16_bits_and_parameters_are_converted(tmp_path, change):
    tensors = official_tensors(64, **SMALL)
    changed = {name: change(value) if value.is_floating_point() else value for name, value in tensors.items()}
    done = convert(save(tmp_path, changed), tmp_path)
    assert done.difference < 1e-12
    weight = UOVModel.from_pretrained(done.folder).point_projection.weight
    assert torch.equal(weight, changed["final.kernel"].float().T)


OTHERS = {
    "complex": torch.zeros(1, 17, dtype=torch.complex64),
    "expanded": torch.zeros(1).expand(1, 17),
    "on no device": torch.zeros(1, 17, device="meta"),
    "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["final.bias", "final.kernel", "conv0p1s1.kernel"])
def test_a_tensor_that_is_not_dense_or_not_real_is_refused(tmp_path, kind, name):
    path = save(tmp_path, official_tensors(17, **SMALL) | {name: OTHERS[kind]})
    with pytest.raises(ValueError, match="official.pt: expected (a PyTorch file|dense tensors of real numbers)"):
        convert(path, tmp_path)


@pytest.mark.parametrize("name", ["final.bias", "final.kernel", "conv0p1s1.kernel", "bn0.bn.bias"])
@pytest.mark.parametrize("shape", [(), (0,), (1, 1, 1), (5, 1, 1, 1, 1, 1)])
def test_a_tensor_of_any_other_shape_is_named(tmp_path, name, shape):
    path = save(tmp_path, official_tensors(17, **SMALL) | {name: torch.zeros(shape)})
    with pytest.raises(ValueError, match="official.pt: (the head `final.kernel` must|.* becomes .* but has shape)"):
        convert(path, tmp_path)


@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("voxel_size", torch.ones(2), "voxel_size = 0.1, got Tensor"),
        ("voxel_size", [0.1], "voxel_size = 0.1, got list"),
        ("bn_momentum", "x", "bn_momentum must be 0 to 1, got 'x'"),
        ("bn_momentum", None, "bn_momentum must be 0 to 1, got NoneType"),
        ("bn_momentum", float("nan"), "bn_momentum must be 0 to 1, got nan"),
        ("bn_momentum", torch.ones(2), "bn_momentum must be 0 to 1, got Tensor"),
    ],
)
def test_a_setting_of_another_kind_is_refused(tmp_path, setting, value, message):
    path = save(tmp_path, {"model_points": official_tensors(17, **SMALL), "config": {setting: value}})
    with pytest.raises(ValueError, match=f"official.pt: .*{message}"):
        convert(path, tmp_path)


class Attributed(OrderedDict):
    """Becomes, in a file, an ordered dictionary with attributes that have the names of its methods."""

    def __reduce__(self):
        return OrderedDict, (), dict.fromkeys(("get", "items", "keys"), 1), None, iter(self.items())


def test_attributes_of_dictionaries_and_tensors_are_not_used(tmp_path):
    tensors = official_tensors(64, **SMALL)
    for name in ("conv0p1s1.kernel", "bn0.bn.weight"):
        tensors[name] = torch.nn.Parameter(tensors[name])
        tensors[name].unflatten = tensors[name].numpy = 5
    content = Attributed(model_points=Attributed(tensors), config=Attributed(SETTINGS))
    assert convert(save(tmp_path, content), tmp_path).difference < 1e-12


def test_names_that_are_no_texts_are_unknown(tmp_path):
    deep = ()
    for _ in range(90):
        deep = (deep,)
    path = save(tmp_path, official_tensors(64, **SMALL) | {deep: torch.zeros(1)})
    with pytest.raises(ValueError, match="official.pt: expected the .* unknown .'<tuple>'. .1."):
        convert(path, tmp_path)
    with pytest.raises(ValueError, match="official.pt: expected the MinkUNet .* got <tuple>"):
        convert(save(tmp_path, {deep: 1}), tmp_path)


def test_a_network_whose_scores_are_all_zero_is_named(tmp_path):
    tensors = {name: value * 0 for name, value in official_tensors(64, **SMALL).items()}
    with pytest.raises(ValueError, match="official.pt: the converted network differs"):
        convert(save(tmp_path, tensors), tmp_path)


def without(name):
    return {key: value for key, value in official_tensors(64, **SMALL).items() if key != name}


@pytest.mark.parametrize(
    "content, message",
    [
        (without("block3.0.norm1.bn.bias"), "missing .'block3.0.norm1.bn.bias'. .1., unknown none"),
        ({**without(""), "extra.weight": torch.zeros(1)}, "missing none .0., unknown .'extra.weight'."),
        (
            {**without(""), "block2.0.conv1.kernel": torch.zeros(27, 3, 3)},
            r"block2.0.conv1.kernel becomes .* \(27, 3, 3\)",
        ),
        (official_tensors(31, **SMALL), "must have one of these numbers of outputs: .*, got 31"),
        ({"model_points": without(""), "config": {**SETTINGS, "voxel_size": 0.05}}, "voxel_size = 0.1, got 0.05"),
        (
            {"state_dict": {"backbone.conv_input.0.weight": torch.zeros(1)}},
            "Pointcept's SpUNet, which cannot be converted",
        ),
        ({"weights": torch.zeros(1)}, "expected the MinkUNet of UOV/AFOV or SLidR .* got weights"),
        ([torch.zeros(1)], "expected a checkpoint of UOV/AFOV or SLidR, which is a dictionary, got list"),
    ],
)
def test_what_is_not_exactly_the_official_network_is_refused(tmp_path, content, message):
    path = save(tmp_path, content)
    with pytest.raises(ValueError, match=message) as error:
        convert(path, tmp_path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "converted").exists()


def lightning_checkpoint(tensors, callback):
    """As Lightning 1.4 writes it: what callbacks store has their classes as keys."""
    state = {"monitor": None, "best_model_score": torch.tensor(1.0), "best_model_path": "epoch=4.ckpt"}
    return {
        "epoch": 4,
        "global_step": 10,
        "pytorch-lightning_version": "1.4.0",
        "state_dict": prefixed("model.", tensors),
        "callbacks": {callback: state},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.5}]}],
        "lr_schedulers": [{"base_lrs": [0.5], "last_epoch": 4}],
    }


@pytest.fixture
def lightning_class(monkeypatch):
    """Make a class of a module that is there while a file is written, and gone when it is read."""

    def make(module, name):
        made = type(name, (), {"__module__": module})
        for end in (index for index, sign in enumerate(f"{module}.") if sign == "."):
            monkeypatch.setitem(sys.modules, module[:end], types.ModuleType(module[:end]))
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return make


@pytest.mark.parametrize("name", ["model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping", "timer.Timer"])
def test_a_checkpoint_of_lightning_is_read_without_lightning(tmp_path, lightning_class, monkeypatch, name):
    module, name = f"pytorch_lightning.callbacks.{name}".rsplit(".", 1)
    tensors = official_tensors(64, **SMALL)
    path = save(tmp_path, lightning_checkpoint(tensors, lightning_class(module, name)))
    monkeypatch.undo()
    found, _ = read_official(path)
    assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in found)
    assert "pytorch_lightning" not in sys.modules
    assert set(STAND_INS).isdisjoint(torch.serialization.get_safe_globals())  # other files are read as before


NUMBERS = [np.float64(0.02), np.float32(0.5), np.int64(-3), np.uint8(7), np.bool_(True)]


@pytest.mark.parametrize("old_name", [False, True])
def test_numpy_scalars_among_the_settings_are_read_as_numbers(tmp_path, old_name):
    path, wanted = tmp_path / "official.pt", {str(place): number for place, number in enumerate(NUMBERS)}
    torch.save({"model_points": official_tensors(64, **SMALL), "config": wanted}, path)
    if old_name:  # NumPy 1 has another name for the module, and of another length: edited within the archive
        rename_in_archive(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
    _, settings = read_official(path)
    assert settings == wanted and all(type(number) in (float, int, bool) for number in settings.values())


def rename_in_archive(path, old, new):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


def test_a_numpy_scalar_of_another_kind_is_refused(tmp_path):
    for value in (np.str_("a"), np.array([(1, 2.0)], "i4,f8")[0], np.datetime64("2026-01-01")):
        with pytest.raises(ValueError, match="official.pt: expected a"):
            read_official(save(tmp_path, {"model_points": official_tensors(64, **SMALL), "config": {"lr": value}}))


def test_a_refused_file_can_be_stripped_by_the_command_in_the_message(tmp_path):
    tensors, folder = official_tensors(64, **SMALL), tmp_path / "it's \"😀"
    folder.mkdir()
    path = save(folder, {"state_dict": prefixed("model.", tensors), "hyper_parameters": Fraction(1, 2)})
    with pytest.raises(
        ValueError, match="official.pt: .* it contains fractions.Fraction. If you trust the file"
    ) as error:
        read_official(path)
    _, *options = shlex.split(re.search(r"python -c .*(?=\. Then convert)", str(error.value))[0])
    subprocess.run([sys.executable, *options], check=True)
    assert str(folder / "official_stripped.pt") in str(error.value)
    found, _ = read_official(folder / "official_stripped.pt")
    assert found.keys() == tensors.keys()


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("never-made",)


def test_a_file_that_wants_to_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "malicious.pt"
    torch.save({"model_points": official_tensors(64, **SMALL), "config": RunsCode()}, path)
    with pytest.raises(ValueError, match="can be read without running code; it contains .*mkdir, .* do not load it"):
        convert(path, tmp_path)
    for content in (pickle.dumps(RunsCode()), b"", b"PK and nothing"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="malicious.pt: expected a PyTorch file"):
            convert(path, tmp_path)
    assert not (tmp_path / "never-made").exists()


@pytest.mark.slow
def test_the_command_converts_a_file_of_full_size(tmp_path):
    path = save(tmp_path, {"model_points": official_tensors(768, **FULL), "config": SETTINGS})
    command = [sys.executable, "-m", "uov_hf_cli", "convert", path, "--output_dir", tmp_path / "out"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "UOVModel, 374 tensors; output of the head: the teacher's text space" in printed
    assert sum(value.numel() for value in UOVModel.from_pretrained(tmp_path / "out").parameters()) == 37_917_472
