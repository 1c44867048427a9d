"""Compiles the modules that each message passes, for wheels: docs/design/compiled.md."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Only `PyInit_…` has to be seen from outside, and says so itself. What others could replace at run time, as they could
# any other symbol of a shared library, is not called directly and not inlined. And cold calls out of it need no stub.
FLAGS = [] if sys.platform == "win32" else ["-fvisibility=hidden", "-fno-plt"]


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts extension modules beside the modules that pyproject.toml names; Python prefers these."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs: the compiler, and the types of all that is imported."""
        core = self.metadata.core
        return [*self.config["compiler"], *core.dependencies, *core.optional_dependencies["fast"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, but not for an editable installation: there a change of a source is to count at once."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="quicbus-")
        for path, name in compile_modules(Path(self.root), self.config["modules"], Path(self._folder.name)):
            build_data["force_include"][str(path)] = name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def compile_modules(root: Path, modules: list[str], folder: Path) -> list[tuple[Path, str]]:
    """Compile modules, named relative to `root`; returns each extension module with its name in a wheel.

    C files and what is built of them go into `folder`. Raises `SystemExit` where that cannot be done.
    """
    _check_compiler(folder)
    built = _build(translate_modules(root, modules, folder), folder)
    return [(path, path.relative_to(built).as_posix()) for path in sorted(built.rglob("*")) if path.is_file()]


def _check_compiler(folder: Path) -> None:
    """Compile next to nothing: what is missing is told at once, not after a minute of translating."""
    from setuptools import Extension

    source = folder / "probe.c"
    source.write_text("#include <Python.h>\n\nPyMODINIT_FUNC PyInit_probe(void) { return NULL; }\n")
    _build([Extension("probe", [str(source)])], folder / "probe")


def _build(extensions: list[Any], folder: Path) -> Path:
    """Build into `folder`, and return that part of it that has the extension modules and nothing else."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CCompilerError

    build = build_ext(Distribution({"name": "quicbus", "ext_modules": extensions}))
    build.build_lib = str(folder / "modules")
    build.build_temp = str(folder / "objects")
    build.parallel = os.cpu_count()
    build.ensure_finalized()
    try:
        build.run()
    except CCompilerError as error:
        raise SystemExit(
            f"The modules can't be compiled: {error}. It takes a C compiler and Python's headers (Debian: "
            "`apt install gcc python3-dev`); without HATCH_BUILD_HOOKS_ENABLE quicbus is installed as it is, and works."
        ) from None
    return folder / "modules"


def translate_modules(root: Path, modules: list[str], folder: Path) -> list[Any]:
    """Translate modules to C. Raises `SystemExit`, after telling why, where a module cannot be compiled."""
    from mypyc.build import mypycify

    os.chdir(root)
    # A cache of its own: that of a developer may hold types that are not installed here.
    arguments = ["--config-file=pyproject.toml", f"--cache-dir={folder / 'cache'}", *modules]
    extensions: list[Any] = mypycify(arguments, opt_level="2", debug_level="0", target_dir=str(folder / "c"))
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *FLAGS]
    return extensions
