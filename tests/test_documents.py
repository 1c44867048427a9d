"""What the documents name is there: commands with their options, modules, files, and where links lead."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from quicbus_cli.main import root

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
}
SOURCES = ("quicbus", "broker", "clients", "benchmarks", "tests", "tools")
NO_COMMAND = re.compile(r"quicbus (authority|node|client|[\w ]+ v1)")
"""Common names of certificates, and what stands before a text that is signed."""
END_OF_COMMAND = {"<", ">", "|", "&", "&&"}


def blocks(text: str) -> list[str]:
    """Return the code blocks that have no language."""
    return re.findall(
        r"^```\n(.*?)^```", re.sub(r"^```\w.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.M | re.S
    )


def typed() -> list[str]:
    """Return the command lines as they stand in code blocks."""
    lines = [
        line.removeprefix("$ ")
        for text in DOCUMENTS.values()
        for block in blocks(text)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return sorted({line for line in lines if line.startswith("quicbus ")})


def mentioned() -> list[str]:
    """Return the commands within sentences, where arguments may be left out."""
    found = {" ".join(each.split()) for text in DOCUMENTS.values() for each in re.findall(r"`(quicbus [^`]+)`", text)}
    commands = (each for each in found if not NO_COMMAND.fullmatch(each) and not each.startswith("quicbus COMMAND"))
    return sorted({one for each in commands for one in alternatives(each)})


def alternatives(line: str) -> list[str]:
    """Return one line for each command of `quicbus token create|list`."""
    head, _, last = line.rpartition(" ")
    return [f"{head} {each}" for each in last.split("|")] if "|" in last else [line]


def resolved(line: str) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command, that of its group, and the words that are left for it."""
    words = shlex.split(line, comments=True)[1:]
    end = next((number for number, word in enumerate(words) if word in END_OF_COMMAND), len(words))
    command: click.Command = root
    words, context = words[:end], click.Context(root)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command, context = found, click.Context(found, parent=context)
    return command, context, words


@pytest.mark.parametrize("line", typed())
def test_command_line_is_one_that_the_command_takes(line: str) -> None:
    command, context, words = resolved(line)
    command.make_context(line, words, parent=context.parent)


@pytest.mark.parametrize("line", mentioned())
def test_command_that_is_mentioned_has_these_options(line: str) -> None:
    command, context, words = resolved(line)
    known = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"} <= {*known, "-h"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_that_are_to_be_run_are_there(document: str) -> None:
    for name in re.findall(r"python3? -m ([\w.]+)", DOCUMENTS[document]):
        module = importlib.util.find_spec(name.rstrip("."))
        assert module is not None, name
        assert module.submodule_search_locations is None or importlib.util.find_spec(f"{name}.__main__"), name


@cache
def files() -> frozenset[str]:
    return frozenset(path.as_posix() for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_folders_that_are_named_are_there(document: str) -> None:
    spans = re.findall(r"`([^`\s]+)`", DOCUMENTS[document])
    modules = {match[1] for each in spans if (match := re.fullmatch(r"([\w/]+\.py)(::\w+)?", each))}
    places = {each for each in spans if re.fullmatch(rf"({'|'.join(SOURCES)}|docs)/[\w./-]*[a-z/]", each)}
    missing = {each for each in modules if not any(path.endswith(f"/{each}") for path in files())}
    missing |= {each for each in places if not (ROOT / each).exists()}
    assert not missing


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", DOCUMENTS[document], flags=re.M | re.S)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in map(anchor_of, headings), target
