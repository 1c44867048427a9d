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

ROOT = Path(__file__).parent.parent
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOK["custom"]["modules"]
IS_COMPILED = "TESTS_COMPILED" in os.environ


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


def compiling(function: str, folder: Path, *modules: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from pathlib import Path

from tools.compiling import {function}

print({function}(Path(), sys.argv[2:], Path(sys.argv[1])))
"""
    command = [sys.executable, "-c", code, str(folder), *modules]
    environ = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=350)


@pytest.mark.skipif(IS_COMPILED, reason="they were compiled")
def test_the_compiler_takes_all_modules(tmp_path: Path) -> None:
    run = compiling("translate_modules", tmp_path, *MODULES)

    assert run.returncode == 0, run.stdout + run.stderr
    assert list(tmp_path.rglob("*.c"))


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_module_becomes_an_extension_module_with_its_name_in_a_wheel(tmp_path: Path) -> None:
    run = compiling("compile_modules", tmp_path, "quicbus/values.py")

    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob("modules/quicbus/values.*")
    assert path.suffix in EXTENSION_SUFFIXES[-1]
    assert f"'quicbus/{path.name}'" in run.stdout


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_functions_of_compiled_modules_are_hidden_from_other_libraries_and_so_called_directly(tmp_path: Path) -> None:
    run = compiling("compile_modules", tmp_path, "quicbus/limits.py", "quicbus/values.py")

    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob("modules/*__mypyc*")
    functions = {name for source in tmp_path.rglob("*.c") for name in re.findall(r"CPyDef_\w+", source.read_text())}
    library = ctypes.CDLL(str(path))
    assert functions
    assert [name for name in functions if hasattr(library, name)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="there the compiler is not found by CC")
def test_without_a_c_compiler_the_remedy_is_named(tmp_path: Path) -> None:
    run = compiling("compile_modules", tmp_path, "quicbus/values.py", CC="/nowhere/cc")

    assert run.returncode == 1
    assert "apt install gcc" in run.stderr
    assert "Traceback" not in run.stderr
