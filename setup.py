"""Builds the native libraries; all metadata is in pyproject.toml.

`python setup.py build_ext --inplace` writes them beside the Python sources. Switches: MARLIN_CUDA,
MARLIN_DEBUG, MARLIN_SANITIZE (docs/architecture.md), CXX, CUDA_HOME.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, os.fspath(ROOT / "csrc"))

from buildtools.errors import BuildError  # noqa: E402
from buildtools.libraries import cpu_library, cuda_library, jobs, wanted_cuda  # noqa: E402
from buildtools.native import Library, build_library, install  # noqa: E402


def _extension(name: str) -> Extension:
    # The libraries have no Python symbol in them; abi3 is the honest tag for "any Python".
    return Extension(name, sources=[], py_limited_api=True)


class BuildNative(build_ext):
    """In place of setuptools' compiler driver: flags and a line per file."""

    def finalize_options(self) -> None:
        try:
            if wanted_cuda(os.environ, self._report):
                self.distribution.ext_modules.append(_extension("marlin._C_cuda"))
        except BuildError as error:
            raise SystemExit(f"error: {error}") from None
        super().finalize_options()

    def copy_extensions_to_source(self) -> None:
        """Replaces each library in one step: a running process keeps the file it has mapped."""
        build_py = self.get_finalized_command("build_py")
        for extension in self.extensions:
            inplace, built = self._get_inplace_equivalent(build_py, extension)
            install(Path(built), Path(inplace))

    def build_extensions(self) -> None:
        try:
            for extension in self.extensions:
                self._build(extension)
        except BuildError as error:
            raise SystemExit(f"error: {error}") from None

    def _build(self, extension: Extension) -> None:
        make = {"marlin._C": cpu_library, "marlin._C_cuda": cuda_library}[extension.name]
        library: Library = make(ROOT, os.environ)
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        objects = Path(self.build_temp).resolve() / library.name
        build_library(library, target, objects, jobs(), self._report)

    def _report(self, line: str) -> None:
        print(f"marlin: {line}", flush=True)


setup(
    ext_modules=[_extension("marlin._C")],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
