"""The documents are right: their code runs, their commands are accepted, their links, names and options exist."""

import ast
import pkgutil
import re
import shlex
import shutil
import tomllib
import traceback
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from document_blocks import (
    PAGES,
    REPOSITORY,
    URL,
    Block,
    anchors_of,
    blocks_of,
    code_spans_of,
    commands_of,
    links_of,
    options_named_in,
    options_of_the_repository,
    program_of,
    read,
)
from document_runs import ON_DEMAND, prepare, run
from forks import start_server


# Code that no test of this file runs, and why. The arguments of its commands are checked all the same.
NOT_RUN = {
    r"^make ": "whole runs of their own: tests/examples/test_demo.py runs the demo, `make test` runs this test",
    r"examples/demo\.py": "tests/examples/test_demo.py runs it",
    r"^pip ": "needs a package index",
    r"--multi_gpu|^sbatch ": "needs several GPUs or machines; tests/examples runs two processes, and the Slurm script",
    r"--teacher (clipseg|tipsv2|sam2|semantic)": "needs published weights; tests/teachers runs all with random ones",
    r"uov-hf reproduce": "needs a finished run; tests/examples/test_reproduced_runs.py reproduces some",
    r"uov-hf train --data_dir my_car": "needs a car; tests/recipe/test_recipes.py makes the recipe for one",
    r"--teacher files": "needs what other programs wrote; tests/teachers/test_files_teacher.py makes and reads it",
    r"distill\.py .*--data_dir my_car ": "needs a car; tests/examples/test_optional_files.py distils such a label set",
    r"--dataset nuscenes point_cloud_folder": "needs a car; tests/examples/test_several_in_one_run.py trains on two",
    r"^uov-hf push|push_checkpoint": "needs the Hub; tests/hub pushes to and pulls from a server of its own",
    r"examples/space/app\.py": "serves until it is stopped; tests/browser/test_space.py clicks through it",
    r"^class NewSpace": "a pattern that names a model which its reader writes",
}
# What the quick test of the newcomer's lines leaves to the slow test of all pages.
SLOW = r"^(accelerate launch|uov-hf train) "
# Finished benchmarks, which docs/results.md cites from the history.
STUDIES = {
    f"benchmarks/{name}.py"
    for name in "afi_noise afi_study label_ablation ladder mask_pooling occlusion_pandaset occlusion_street "
    "streaming_memory streaming_tables".split()
}
LANGUAGES = {"python", "bash", "yaml", "json", "text"}
COMMAND = re.compile(r"^\s*[$>]?\s*(accelerate|python|pip|uov-hf|make|hf|sbatch|export)\s", re.MULTILINE)
BLOCKS = {str(page): blocks_of(str(page), read(page)) for page in PAGES}
ALL_BLOCKS = [block for blocks in BLOCKS.values() for block in blocks]
CODE = [page for page, blocks in BLOCKS.items() if any(block.language in ("python", "bash") for block in blocks)]
COMMANDS = [(block, words) for block in ALL_BLOCKS if block.language == "bash" for words in commands_of(block)]


def reason_not_to_run(code: str | list[str]) -> str | None:
    text = code if isinstance(code, str) else shlex.join(code)
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, text)), None)


@pytest.fixture(scope="session")
def server():
    return start_server()


@pytest.fixture(scope="session")
def disk(tmp_path_factory) -> Path:
    """The files that a reader of the pages has. Do not write into it.

    A block of YAML or Python that opens with a file name in a comment is that file.
    """
    folder = tmp_path_factory.mktemp("disk")
    prepare(folder)
    for block in ALL_BLOCKS:
        if name := re.match(r"# (\w+\.(yaml|yml|py))\n", block.code if block.language in ("yaml", "python") else ""):
            (folder / name.group(1)).write_text(block.code, encoding="utf-8")
    return folder


def run_blocks(blocks: list[Block], folder: Path, server) -> list[str]:
    """Run the Python and bash of a page from top to bottom, in a folder; its Python shares one namespace.

    Returns:
        The places in the page that failed, each with its error.
    """
    namespace, errors = {"__name__": "__main__"}, []
    for block in blocks:
        if block.language == "python":
            errors.append(run_python(block, namespace, folder))
        for words in commands_of(block) if block.language == "bash" else ():
            errors.append(run_command(block, words, folder, server))
    return [error for error in errors if error]


def run_python(block: Block, namespace: dict, folder: Path) -> str | None:
    tree = ast.parse("\n" * (block.line - 1) + block.code, block.page)
    if reason_not_to_run(block.code):
        tree.body = [statement for statement in tree.body if isinstance(statement, (ast.Import, ast.ImportFrom))]
    with chdir(folder):
        try:
            exec(compile(tree, block.page, "exec"), namespace)
        except Exception as error:
            return f"{block}: {''.join(traceback.format_exception(error))}"


def run_command(block: Block, words: list[str], folder: Path, server) -> str | None:
    if reason_not_to_run(words):
        return None
    if not program_of(words):
        return f"{block}: {words[0]} is neither ours nor in NOT_RUN"
    status, output = run(server, program_of(words), folder)
    return f"{block}: {shlex.join(words)}\n{output}" if status else None


@pytest.fixture
def reader(disk, tmp_path, monkeypatch) -> Path:
    """A copy of these files, to write into."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    return Path(shutil.copytree(disk, tmp_path / "reader", symlinks=True))


def save_what_is_read(page: str, folder: Path) -> None:
    """Make the files that only some pages read."""
    for name, save in ON_DEMAND.items():
        if name in read(Path(page)):
            with chdir(folder):
                save(Path(name))


def test_the_first_lines_of_the_readme_run(reader, server, monkeypatch):
    monkeypatch.setitem(NOT_RUN, SLOW, "left to the test below")
    save_what_is_read("README.md", reader)
    shutil.copytree(reader / "out" / "demo" / "uov", reader / "out" / "car" / "uov")  # of a command that is left out
    assert not run_blocks(BLOCKS["README.md"], reader, server)
    assert (reader / "out" / "scan" / "labels.npy").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", CODE)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, reader, server):
    save_what_is_read(page, reader)
    assert not run_blocks(BLOCKS[page], reader, server)


@pytest.mark.parametrize("checkpoint", ["tmp", "uov"])
def test_the_usage_in_a_model_card_runs(checkpoint, reader, server):
    card = (reader / "out" / "demo" / checkpoint / "README.md").read_text(encoding="utf-8")
    blocks = [block for block in blocks_of(f"{checkpoint}'s card", card) if block.language == "python"]
    assert blocks and not run_blocks(blocks, reader / "out" / "demo", server)


def test_the_arguments_of_every_command_are_known_to_its_program(disk, server):
    refused = []
    for block, words in COMMANDS:
        program = program_of(words)
        if len(program) == 1:  # no arguments
            refused += [] if (REPOSITORY / program[0]).is_file() else [f"{block}: there is no {program[0]}"]
        elif program:
            status, output = run(server, [word for word in program if word != "…"], disk, arguments_only=True)
            refused += [f"{block}: {shlex.join(words)}\n{output}"] if status else []
        elif words[0] == "make":
            refused += [f"{block}: {words}"] * (f"\n{words[1]}:" not in (REPOSITORY / "Makefile").read_text())
        elif words[0] == "pip":
            refused += [f"{block}: {words}"] * (not extras_named_in(words) <= extras_of_the_package())
        else:
            refused.append(f"{block}: {words[0]} is no program that this test knows")
    assert COMMANDS and not refused, "\n".join(refused)


def extras_named_in(words: list[str]) -> set[str]:
    return {extra for word in words for names in re.findall(r"\[([\w,]+)\]", word) for extra in names.split(",")}


def extras_of_the_package() -> set[str]:
    return set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_no_code_hides_in_a_block_that_is_not_run():
    for page in PAGES:
        fences = re.findall(r"^\s*```", (REPOSITORY / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(BLOCKS[str(page)]), page
    assert {"README.md", "docs/how_to/train.md", "docs/tutorials/street.md", "examples/README.md"} <= set(CODE)
    for block in ALL_BLOCKS:
        assert block.language in LANGUAGES, f"{block}: no test runs a block of the language {block.language!r}"
        if block.language in ("yaml", "json"):
            assert isinstance(yaml.safe_load(block.code), dict), block
        if block.language not in ("python", "bash"):
            assert not COMMAND.search(block.code), f"{block}: a command must be in a block of bash"


def test_every_exception_has_a_block_that_needs_it_and_a_test_that_is_there():
    code = [shlex.join(words) for _, words in COMMANDS]
    code += [block.code for block in ALL_BLOCKS if block.language == "python"]
    for pattern, reason in NOT_RUN.items():
        assert any(re.search(pattern, text) for text in code), f"{pattern} is not needed any more"
        assert all((REPOSITORY / path).exists() for path in re.findall(r"tests/\w+(?:/\w+\.py)?", reason)), reason


@pytest.mark.parametrize(
    "page, expected",
    [
        (
            "```python\nright = 1\n```\n\n```python\n\nwrong = right + no_such_name\n```\n",
            'page.md", line 7.*NameError',
        ),
        ("```bash\nuov-hf vocabulary no_such_vocabulary\n```\n", "page.md:2.*no_such_vocabulary"),
        ("```bash\nfrobnicate --all\n```\n", "page.md:2: frobnicate is neither ours"),
    ],
)
def test_a_wrong_block_fails_with_its_place_in_the_page(page, expected, server, tmp_path):
    (error,) = run_blocks(blocks_of("page.md", page), tmp_path, server)
    assert re.search(expected, error, re.DOTALL), error


def test_a_renamed_option_of_a_command_that_is_not_run_is_refused(server, tmp_path):
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    block = Block(
        "page.md", 1, "bash", "accelerate launch --multi_gpu examples/pretrain.py \\\n  --batchsize 3  # no\n"
    )
    (words,) = commands_of(block)
    assert reason_not_to_run(words)
    status, output = run(server, program_of(words), tmp_path, arguments_only=True)
    assert status == 2 and "unrecognized arguments: --batchsize" in output


def test_bash_that_bash_does_not_read_is_no_block():
    with pytest.raises(ValueError, match="page.md:1: bash does not read"):
        commands_of(Block("page.md", 1, "bash", "python a.py 'no end"))


@pytest.mark.parametrize("page", [str(page) for page in PAGES])
def test_every_link_and_figure_leads_somewhere(page):
    for link in links_of(read(Path(page))):
        own = re.match(rf"{URL}/(?:blob|tree|raw)/main/(.*)", link)
        if not own and re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = (own.group(1) if own else link).partition("#")
        target = (REPOSITORY if own else (REPOSITORY / page).parent) / path if path else REPOSITORY / page
        assert target.exists(), f"{page}: there is no {link}"
        if anchor:
            anchors = anchors_of(read(target.resolve().relative_to(REPOSITORY)))
            assert anchor in anchors, f"{page}: {link} has no such heading; there are {sorted(anchors)}"


@pytest.mark.parametrize("page", [str(page) for page in PAGES if page.name != "CHANGELOG.md"])
def test_every_option_in_the_prose_is_one_of_a_program(page):
    # argparse adds --help; the others are those of `accelerate launch`
    known = options_of_the_repository() | {"--help", "--multi_gpu", "--num_processes", "--signal"}
    assert options_named_in(read(Path(page))) <= known


@pytest.mark.parametrize("page", [str(page) for page in PAGES if page.name != "CHANGELOG.md"])
def test_every_name_and_file_of_the_code_in_the_prose_is_there(page):
    text = read(Path(page))
    for span in code_spans_of(text):
        if re.fullmatch(r"uov_hf(_cli)?(\.\w+)+", span):
            assert pkgutil.resolve_name(span) is not None
        for path in re.findall(
            r"\b(?:uov_hf|uov_hf_cli|examples|benchmarks|dataset_scripts|tests)/[\w./-]+\.py\b", span
        ):
            assert (REPOSITORY / path).exists() or path in STUDIES, f"{page}: there is no {path}"


def test_every_document_named_in_the_code_is_there():
    for room in ("uov_hf", "uov_hf_cli", "examples", "benchmarks", "dataset_scripts", "tests"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8")):
                assert (REPOSITORY / page).exists(), f"{path}: there is no {page}"
