"""The modules that wheels hold compiled: the compiler takes them, and they are what is tested where that is wanted."""

from __future__ import annotations

import ast
import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tools import training
from tools.compiling import train

ROOT = Path(__file__).parent.parent
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOK["custom"]["modules"]
IS_COMPILED = "TESTS_COMPILED" in os.environ
NEEDS_GCC = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc"), reason="others than gcc are not told what runs often"
)


@pytest.mark.parametrize("path", MODULES)
def test_a_module_is_compiled_where_that_is_what_is_tested(path: str) -> None:
    name = path.removeprefix("broker/").removesuffix(".py").replace("/", ".")

    module = importlib.import_module(name)

    assert module.__file__ is not None
    assert module.__file__.endswith(".py") != IS_COMPILED, module.__file__


@pytest.mark.parametrize("path", MODULES)
def test_no_compiled_module_makes_a_struct_whose_keywords_would_be_lost(path: str) -> None:
    classes = [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ClassDef)]

    assert [one.name for one in classes if one.keywords or "msgspec.Struct" in map(ast.unparse, one.bases)] == []


def compiling(call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call a function of tools.compiling, given as it is written, and print what it returns."""
    code = f"""
from pathlib import Path

from tools.compiling import compile_modules, translate_modules

print({call})
"""
    command = [sys.executable, "-c", code]
    environ = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=350)


@pytest.mark.skipif(IS_COMPILED, reason="they were compiled")
def test_the_compiler_takes_all_modules(tmp_path: Path) -> None:
    run = compiling(f"translate_modules(Path(), {MODULES}, Path({str(tmp_path)!r}))")

    assert run.returncode == 0, run.stdout + run.stderr
    assert list(tmp_path.rglob("*.c"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, of which one function is called in training."""
    root = tmp_path / "project"
    for folder in ("package", "tools"):
        (root / folder).mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.mypy]\n")
    (root / "package" / "__init__.py").write_text("")
    (root / "package" / "other.py").write_text("")
    (root / "package" / "module.py").write_text(
        """
def often(values: list[int]) -> int:
    total = 0
    for value in values:
        if value:
            total += value
        else:
            raise ValueError(values)
    return total


def never(values: list[int]) -> int:
    return often(values) + often(values[1:]) + often(values[2:])
"""
    )
    (root / "tools" / "training.py").write_text(
        "from package.module import often\n\nassert often([1] * 10_000) == 10_000\n"
    )
    return root


@NEEDS_GCC
def test_modules_become_extension_modules_of_hidden_functions_and_the_compiler_knows_which_run_often(
    project: Path,
) -> None:
    folder = project / "build"
    folder.mkdir()
    modules = ["package/module.py", "package/other.py"]

    run = compiling(f"compile_modules(Path({str(project)!r}), {modules}, Path({str(folder)!r}), ['package'])")

    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("modules/package/module.*")
    assert path.name == "module" + EXTENSION_SUFFIXES[0]
    assert f"'package/{path.name}'" in run.stdout
    (shared,) = folder.glob("modules/*__mypyc*")
    functions = {name for source in folder.rglob("*.c") for name in re.findall(r"CPyDef_\w+", source.read_text())}
    library = ctypes.CDLL(str(shared))
    assert functions
    assert [name for name in functions if hasattr(library, name)] == []
    assert b"gcov" not in shared.read_bytes()
    assert b".cold" in shared.read_bytes()


def test_where_training_fails_the_reason_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "tools" / "training.py").write_text("raise OSError('no sockets here')\n")

    assert not train([], project, ["package"], project / "build")

    told = capsys.readouterr().out
    assert "training failed" in told
    assert "OSError: no sockets here" in told


@pytest.mark.skipif(not IS_COMPILED, reason="they are not compiled")
@NEEDS_GCC
def test_compiled_modules_were_trained() -> None:
    module = Path(str(importlib.import_module("quicbus.limits").__file__))
    named_in_it = module.read_bytes()
    (library,) = [
        one for one in module.parents[1].glob("*__mypyc*") if one.name.partition(".")[0].encode() in named_in_it
    ]

    assert library.read_bytes().count(b".cold\0") > len(MODULES)


async def test_training_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "REQUESTS", {1: 16, 16: 256})
    monkeypatch.setattr(training, "STREAMS", tuple((size, topics, 32) for size, topics, _ in training.STREAMS))
    monkeypatch.setattr(training, "FAN_OUT", 32)

    await training.train()


@pytest.mark.skipif(sys.platform == "win32", reason="there the compiler is not found by CC")
def test_without_a_c_compiler_the_remedy_is_named(tmp_path: Path) -> None:
    run = compiling(f"compile_modules(Path(), ['quicbus/values.py'], Path({str(tmp_path)!r}), [])", CC="/nowhere/cc")

    assert run.returncode == 1
    assert "apt install gcc" in run.stderr
    assert "Traceback" not in run.stderr
