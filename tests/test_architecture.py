"""Rules of the code base that no other tool keeps: where imports may point, how large files are, what packages do."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCES = {
    "quicbus": ROOT / "quicbus",
    "quicbus_broker": ROOT / "broker" / "quicbus_broker",
    "quicbus_cli": ROOT / "clients" / "quicbus_cli",
}
FILES = sorted((name, path) for name, folder in SOURCES.items() for path in folder.rglob("*.py"))

# What a part may import of quicbus: all that stands here, and itself. Most specific first.
FOUNDATION = {"quicbus.exceptions", "quicbus.limits", "quicbus.values"}
SETTINGS = FOUNDATION | {"quicbus.setting_values", "quicbus.settings", "quicbus.setting_docs"}
CORE = SETTINGS | {
    "quicbus.feeds",
    "quicbus.logs",
    "quicbus.process",
    "quicbus.topics",
    "quicbus.trie",
    "quicbus.wire",
    "quicbus.identity",
}
ALLOWED = {
    "quicbus.exceptions": set[str](),
    "quicbus.limits": set[str](),
    "quicbus.values": set[str](),
    "quicbus.setting_values": FOUNDATION,
    "quicbus.setting_docs": SETTINGS,
    "quicbus.settings": SETTINGS,
    "quicbus.feeds": FOUNDATION,
    "quicbus.logs": SETTINGS,
    "quicbus.process": FOUNDATION,
    "quicbus.commands": SETTINGS | {"quicbus.logs"},
    "quicbus.topics": FOUNDATION | {"quicbus.trie"},
    "quicbus.trie": FOUNDATION | {"quicbus.topics"},
    "quicbus.wire": FOUNDATION | {"quicbus.topics"},
    "quicbus.identity": SETTINGS | {"quicbus.wire"},
    "quicbus.transport": CORE,
    "quicbus.client": CORE | {"quicbus.transport"},
    "quicbus.testing": {"quicbus"},
    "quicbus": {"quicbus"},
    "quicbus_broker.routing": CORE,
    "quicbus_broker.mesh": CORE | {"quicbus.transport"},
    "quicbus_broker.simulation": CORE | {"quicbus_broker.mesh"},
    "quicbus_broker.permissions": CORE | {"quicbus.commands", "quicbus_broker.settings"},
    "quicbus_broker": {"quicbus", "quicbus_broker"},
    "quicbus_cli": {"quicbus", "quicbus_cli"},
}
ENGINE_LIBRARIES = {"aioquic", "qh3"}
ENGINE_FILES = {"_aioquic.py", "_aioquic_congestion.py", "_qh3.py", "_packets.py"}
PURE = ("quicbus_broker.routing", "quicbus_broker.mesh", "quicbus_broker.simulation", "quicbus.wire")
IMPURE_FILES = {"driver.py", "chance.py", "__main__.py"}
"""In pure packages: where the I/O is, where generators are made of seeds, and what is run by hand."""
FILE_LINES_MAX = 500


def module_of(package: str, path: Path) -> str:
    parts = path.relative_to(SOURCES[package].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import, also those for types only and those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                # `from quicbus import limits` imports a module, `from quicbus import connect` the face.
                yield node.lineno, f"{node.module}.{alias.name}" if node.module == "quicbus" else node.module


def runtime_imports_of(path: Path) -> Iterator[str]:
    """Yield what is imported when the module runs: all but what stands under `if TYPE_CHECKING:`."""
    tree = ast.parse(path.read_text())
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    lines = {line for guard in guards for node in guard.body for line in range(node.lineno, node.end_lineno or 0)}
    lines |= {node.end_lineno or 0 for guard in guards for node in guard.body}
    yield from (name for line, name in imports_of(path) if line not in lines)


def is_within(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def part_of(module: str) -> str:
    return next(part for part in sorted(ALLOWED, key=len, reverse=True) if is_within(module, {part}))


def own(module: str) -> bool:
    return is_within(module, set(SOURCES))


@pytest.mark.parametrize(("package", "path"), FILES, ids=lambda value: getattr(value, "stem", str(value)))
def test_imports_point_one_way(package: str, path: Path) -> None:
    module = module_of(package, path)
    part = part_of(module)
    if part == "quicbus":
        # The face and the blocking facade see all of quicbus, and nothing above it.
        upward = [name for _, name in imports_of(path) if is_within(name, {"quicbus_broker", "quicbus_cli"})]
        assert not upward
        return
    allowed = ALLOWED[part] | {part}
    wrong = [
        f"{path}:{line}: {part} imports {name}"
        for line, name in imports_of(path)
        if own(name) and not is_within(name, allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_broker_does_not_know_the_command_line() -> None:
    for package, path in FILES:
        if package != "quicbus_cli":
            assert not [name for _, name in imports_of(path) if is_within(name, {"quicbus_cli"})], path


def test_engine_libraries_are_imported_only_behind_the_seam() -> None:
    for _, path in FILES:
        used = {name.split(".")[0] for _, name in imports_of(path)} & ENGINE_LIBRARIES
        assert not used or path.name in ENGINE_FILES, f"{path} imports {used}"


def test_state_machines_have_no_loop_clock_socket_or_chance() -> None:
    for package, path in FILES:
        module = module_of(package, path)
        if is_within(module, set(PURE)) and path.name not in IMPURE_FILES:
            used = set(runtime_imports_of(path)) & {"asyncio", "time", "socket", "random", "secrets"}
            assert not used, f"{path} imports {used}"


def test_no_file_grows_into_a_centre_of_gravity() -> None:
    large = {str(path): lines for _, path in FILES if (lines := path.read_text().count("\n")) > FILE_LINES_MAX}
    assert not large


def listing_of(node: ast.stmt) -> list[str] | None:
    """Return what `__all__` is set to, or `None` where the statement is another."""
    if isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value = node.target, node.value
    else:
        return None
    if ast.unparse(target) != "__all__":
        return None
    names: list[str] = ast.literal_eval(value)
    return names


def test_packages_only_reexport() -> None:
    for _, path in FILES:
        if path.name != "__init__.py":
            continue
        for node in ast.parse(path.read_text()).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            assert is_docstring or is_import or listing_of(node) is not None, f"{path}:{node.lineno}"


def test_public_names_are_listed_once() -> None:
    for _, path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = listing_of(node)
            if names is not None:
                assert len(names) == len(set(names)), path


def test_every_module_says_what_lives_there() -> None:
    missing = [str(path) for _, path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not missing
