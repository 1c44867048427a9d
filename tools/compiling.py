"""Compiles the modules that each message passes, for wheels, by what they do at work: docs/design/compiled.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Sequence

# Only `PyInit_…` has to be seen from outside, and says so itself. What others could replace at run time, as they could
# any other symbol of a shared library, is not called directly and not inlined. And cold calls out of it need no stub.
FLAGS = [] if sys.platform == "win32" else ["-fvisibility=hidden", "-fno-plt"]
# gcc's profile-guided optimisation: each object counts into a file beside it, and is then compiled again with that.
WATCHED = ["-fprofile-generate", "-fprofile-update=atomic"]
GUIDED = ["-fprofile-use", "-Wno-missing-profile", "-Wno-error"]  # what is inlined differently is warned of differently
PROBE = """
#include <Python.h>

#if defined(__GNUC__) && !defined(__clang__)
__attribute__((used)) static const char compiler[] = "compiled by gcc";
#endif
PyMODINIT_FUNC PyInit_probe(void) { return NULL; }
"""


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
        packages = self.build_config.packages
        root, folder = Path(self.root), Path(self._folder.name)
        for path, name in compile_modules(root, self.config["modules"], folder, packages):
            build_data["force_include"][str(path)] = name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def compile_modules(root: Path, modules: list[str], folder: Path, packages: list[str]) -> list[tuple[Path, str]]:
    """Compile modules, named relative to `root`; returns each extension module with its name in a wheel.

    With gcc they are compiled twice: in between `tools.training` runs with them, of which the compiler learns what is
    called often. `packages` is what that needs of `root`; where training fails, they are compiled without. C files and
    what is built of them go into `folder`. Raises `SystemExit` where they cannot be compiled.
    """
    is_gcc = b"compiled by gcc" in _probe(folder)
    extensions = translate_modules(root, modules, folder)
    is_trained = is_gcc and train(extensions, root, packages, folder)
    built = _build(extensions, folder, "modules", GUIDED if is_trained else [])
    return [(path, path.relative_to(built).as_posix()) for path in sorted(built.rglob("*")) if path.is_file()]


def _probe(folder: Path) -> bytes:
    """Compile next to nothing, and return it: what is missing is told at once, not after a minute of translating."""
    from setuptools import Extension

    source = folder / "probe.c"
    source.write_text(PROBE)
    (path,) = _build([Extension("probe", [str(source)])], folder, "probe").iterdir()
    return path.read_bytes()


def train(extensions: list[Any], root: Path, packages: list[str], folder: Path) -> bool:
    """Have what runs counted while `tools.training` does; returns whether that came to its end, and prints why not."""
    watched = _build(extensions, folder, "watched", WATCHED)
    for package in packages:
        shutil.copytree(root / package, watched / Path(package).name, dirs_exist_ok=True)
    paths = [str(watched), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(root / "tools" / "training.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        print(f"The modules are compiled without knowing what runs often, as training failed:\n{ended.stderr}")
    return not ended.returncode


def _build(extensions: list[Any], folder: Path, name: str, flags: Sequence[str] = ()) -> Path:
    """Build into `folder`, and return that part of it that has the extension modules alone, called `name`."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CCompilerError

    extensions = [copy(each) for each in extensions]
    for each in extensions:
        each.extra_compile_args = [*each.extra_compile_args, *flags]
        each.extra_link_args = [*each.extra_link_args, *flags]
    build = build_ext(Distribution({"name": "quicbus", "ext_modules": extensions}))
    build.build_lib = str(folder / name)
    build.build_temp = str(folder / "objects")
    build.force = True
    build.parallel = os.cpu_count()
    build.ensure_finalized()
    try:
        build.run()
    except CCompilerError as error:
        raise SystemExit(
            f"The modules can't be compiled: {error}. It takes a C compiler and Python's headers (Debian: "
            "`apt install gcc python3-dev`); without HATCH_BUILD_HOOKS_ENABLE quicbus is installed as it is, and works."
        ) from None
    return folder / name


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
