"""The parts of a document that a program writes: tables, and text between two marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["marks", "replace_marked", "rewrite", "table"]


def marks(writer: str) -> tuple[str, str]:
    """Return the lines between which `writer` writes; readers of the page do not see them."""
    return f"<!-- written by {writer}: begin -->", f"<!-- written by {writer}: end -->"


def rewrite(path: Path, new: str, writer: str) -> None:
    """Replace what `writer` wrote in a page; makes the page where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(replace_marked(text, new, writer), encoding="utf-8")
    beside.replace(path)  # who is interrupted here leaves the old page


def replace_marked(text: str, new: str, writer: str) -> str:
    """Return `text` with `new` between the marks of `writer`; at its end where it has none."""
    begin, end = marks(writer)
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2].strip()
    return f"{before.rstrip()}\n\n{begin}\n{new}{end}\n" + (f"\n{after}\n" if after else "")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
