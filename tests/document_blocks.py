"""The parts of the documents: fenced blocks, the commands in them, links, headings, inline code and options."""

import ast
import re
import subprocess
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token


REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "dataset_scripts/**/*.md", "benchmarks/**/*.md")
    for path in REPOSITORY.glob(pattern)
    if path.name != "model_card.md"  # a template: the test fills it first
)
# bash itself splits a block: it finds no program, so it calls this function with the words of every command.
RECORDER = 'command_not_found_handle() { printf "%s\\0" "$#" "$@" >&3; }\nset -eu\n'
LAUNCHERS = ("accelerate", "sbatch")
RECIPE_JOB = "examples/slurm/recipe.sbatch"  # runs `uov-hf train` with its arguments
URL = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is that of its first line of code, counted from 1."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens_of(text: str) -> list[Token]:
    """The parts of a page, those inside of lines included."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [part for token in tokens for part in (token, *(token.children or ()))]


def read(page: Path) -> str:
    """The text of a page, without the YAML that the Hub puts first; lines keep their numbers."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.sub(r"\A---\n.*?\n---\n", lambda head: "\n" * head.group().count("\n"), text, flags=re.DOTALL)


def blocks_of(page: str, text: str) -> list[Block]:
    return [
        Block(page, token.map[0] + 2, token.info.strip(), token.content)
        for token in tokens_of(text)
        if token.type in ("fence", "code_block")
    ]


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a bash block, as bash splits them.

    Raises:
        ValueError: If bash does not accept the block.
    """
    script = f'exec 3>"$LOG"\n{RECORDER}{block.code}'
    with subprocess.Popen(
        ["/bin/bash", "-c", script],
        env={"PATH": "/nowhere", "LOG": "/dev/stdout", "k": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        output, error = shell.communicate()
    if shell.returncode:
        raise ValueError(f"{block}: bash does not read this block: {error}")
    words, commands = iter(output.split("\0")[:-1]), []
    for number in words:
        commands.append([next(words) for _ in range(int(number))])
    return commands


def program_of(words: list[str]) -> list[str]:
    """A command without its launcher: `[script.py or -m module or uov-hf, …]`; empty where it is none of ours."""
    if RECIPE_JOB in words:
        return ["uov-hf", "train", *words[words.index(RECIPE_JOB) + 1 :]]
    if words[0] in LAUNCHERS:
        script = next((place for place, word in enumerate(words) if word.endswith(".py")), len(words))
        return words[script:]
    if words[0] == "python":
        return words[1:]
    return words if words[0] == "uov-hf" else []


def links_of(text: str) -> list[str]:
    """Where a page points to, pictures included."""
    tokens = tokens_of(text)
    links = [token.attrs.get("href") or token.attrs.get("src") for token in tokens if token.attrs]
    html = "".join(token.content for token in tokens if token.type in ("html_block", "html_inline"))
    return [str(link) for link in links if link] + re.findall(r'(?:href|src)="([^"]+)"', html)


def anchors_of(text: str) -> set[str]:
    """What `#…` may follow a link to this page: its headings, spelt as GitHub spells them."""
    tokens, seen, anchors = tokens_of(text), Counter(), set()
    for token, inline in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            words = "".join(part.content for part in inline.children if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def code_spans_of(text: str) -> list[str]:
    """Inline code of a page, and the names after `:::` that the site replaces by their docstrings."""
    spans = [token.content for token in tokens_of(text) if token.type == "code_inline"]
    return spans + re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def options_named_in(text: str) -> set[str]:
    """`--options` in the prose and tables of a page, except those of commands of other packages."""
    ours = [
        span
        for span in code_spans_of(text)
        if span.split()[:1] not in (["pip"], ["hf"], ["pytest"], ["make"], ["sbatch"])
    ]
    return {option for span in ours for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}


@cache
def options_of_the_repository() -> set[str]:
    """Every option that an `add_argument` or a field of a dataclass of arguments in the repository names."""
    options = set()
    for room in ("uov_hf", "uov_hf_cli", "examples", "dataset_scripts", "benchmarks"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("add_argument", "Option"):
                    names = [word.value for word in node.args if isinstance(word, ast.Constant)]
                    options.update(name for name in names if isinstance(name, str) and name.startswith("--"))
                if isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"):
                    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
                    options.update(f"--{field.target.id}" for field in fields)
                    # HfArgumentParser adds --no_name for a truth value whose default is true.
                    options.update(
                        f"--no_{field.target.id}" for field in fields if ast.unparse(field.annotation) == "bool"
                    )
    return options
