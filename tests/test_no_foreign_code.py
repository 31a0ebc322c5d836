"""No call in the package runs code from data, as SECURITY.md promises."""

import ast
import json

import pytest
from safetensors.torch import save_file
from test_structure import REPOSITORY, SHIPPED, name_of, parse

from uov_hf.segmenting import load_segmenter


# Calls that run code, or write outside of a folder, unless the argument has this value.
SAFE = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "yaml.load": ("Loader", "yaml.SafeLoader"),
    "yaml.compose": ("Loader", "yaml.SafeLoader"),
}
NEVER = (
    "pickle.load",
    "pickle.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "joblib.load",
    "pd.read_pickle",
)
NEVER_METHODS = ("extractall", "unpack_archive")
# Files whose code runs by the user's word: `--trust_teacher_code`.
RUN_CODE = {"uov_hf/teachers/own.py": {"exec", "compile"}}
PROGRAMS = [path for folder in ("examples", "dataset_scripts") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def calls(path) -> list[ast.Call]:
    return [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]


def is_unsafe(call: ast.Call, allowed: set[str]) -> bool:
    function = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if function in SAFE:
        name, value = SAFE[function]
        return given.get(name) != str(value)
    if given.get("trust_remote_code", "False") != "False" or given.get("shell", "False") != "False":
        return True
    # Without this argument, transformers offers in a terminal to run the code of a repository.
    if function.startswith("Auto") and function.endswith(".from_pretrained"):
        return "trust_remote_code" not in given and None not in given
    return (
        function in NEVER
        or function.rpartition(".")[2] in NEVER_METHODS
        or (function in ("eval", "exec", "compile") and function not in allowed)
    )


@pytest.mark.parametrize("path", [*SHIPPED, *PROGRAMS], ids=name_of)
def test_no_call_runs_code_from_data(path):
    allowed = RUN_CODE.get(name_of(path), set())
    unsafe = [
        f"{name_of(path)}:{call.lineno}: {ast.unparse(call)[:80]}" for call in calls(path) if is_unsafe(call, allowed)
    ]
    assert not unsafe


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "archive.extractall(folder)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
    ],
)
def test_the_check_finds_what_runs_code(source):
    (call,) = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    assert is_unsafe(call, set())


def test_a_checkpoint_of_foreign_code_is_refused_whatever_is_typed(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.C"}})
    )
    save_file({}, tmp_path / "model.safetensors")
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    with pytest.raises((OSError, ValueError), match="config.json: .*`model_type` 'foreign'"):
        load_segmenter(tmp_path)
    assert not (tmp_path / "ran").exists()
