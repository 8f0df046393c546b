"""Builds the C++ checks, which know no torch, and runs them: plain, then with ASan and UBSan.

Of the objects compiled for one instruction set it also checks what they define, in these modes and
in that of MARLIN_DEBUG, where functions are not inlined.

`--target arm64` cross-compiles the plain checks and runs them under qemu, on CPUs with few and with
many extensions.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.fspath(ROOT / "csrc"))

from buildtools.compiler import find_cxx, mode_flags, warning_flags  # noqa: E402
from buildtools.errors import BuildError  # noqa: E402
from buildtools.libraries import TORCH_FREE_SOURCES, jobs, kernel_flags  # noqa: E402
from buildtools.native import Library, Source, build_library  # noqa: E402
from symbols import shared_code  # noqa: E402

TESTS = (
    "main.cpp",
    "linear_case.cpp",
    "kernels.cpp",
    "test_float_bits.cpp",
    "test_plan.cpp",
    "test_dispatch.cpp",
    "test_prepack.cpp",
    "test_dequantize.cpp",
    "test_microkernels.cpp",
    "test_scale_layouts.cpp",
    "test_row_slices.cpp",
    "test_integer_sums.cpp",
    "test_special_values.cpp",
    "test_finish.cpp",
    "test_gemm.cpp",
    "test_amx.cpp",
)

# What else is compiled for one instruction set: with the flags of which kernel.
ISA_TESTS = {"tests/amx_on_avx512.cpp": "cpu/path_avx512_bf16.cpp"}

# Without dot products, with them, and with all that qemu knows (bfloat16, int8 matrices, SVE).
ARM64_CPUS = ("cortex-a72", "neoverse-n1", "max")


@dataclass(frozen=True)
class Build:
    """One way to build the checks, and the ways to run the program."""

    name: str
    machine: str
    cxx: list[str]
    mode: list[str]
    link_libraries: tuple[str, ...]
    runs: Mapping[str, tuple[str, ...]]  # title: what stands before the program


def native_builds() -> list[Build]:
    """For this machine: plain, and with sanitizers."""
    cxx = find_cxx(os.environ)
    modes = {"plain": mode_flags({}), "sanitized": mode_flags({"MARLIN_SANITIZE": "1"})}
    return [
        Build(name, platform.machine(), cxx, mode, ("-pthread",), {name: ()})
        for name, mode in modes.items()
    ]


def arm64_builds() -> list[Build]:
    """For arm64 under qemu: plain only. Static, so that qemu needs no system of that machine."""
    command = os.environ.get("CXX_ARM64", "").strip() or "aarch64-linux-gnu-g++"
    needed = (command.split()[0], "qemu-aarch64")
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        raise BuildError(
            f"the checks for arm64 need {' and '.join(missing)} on PATH: install a cross-compiler "
            "and the emulator (Debian and Ubuntu: `apt install --no-install-recommends "
            "g++-aarch64-linux-gnu qemu-user`), or name another compiler in `CXX_ARM64`."
        )
    cxx = find_cxx({**os.environ, "CXX": command})
    runs = {f"arm64, {cpu}": ("qemu-aarch64", "-cpu", cpu) for cpu in ARM64_CPUS}
    return [Build("arm64", "aarch64", cxx, mode_flags({}), ("-static", "-pthread"), runs)]


BUILT = ROOT / "build/csrc-tests"

TARGETS = {"native": native_builds, "arm64": arm64_builds}


def compile_checks(build: Build) -> Path:
    """Returns the program."""
    command = (*build.cxx, "-std=c++20", *build.mode, *warning_flags())
    sources = [Source(ROOT / "csrc" / file, command) for file in TORCH_FREE_SOURCES]
    sources += kernel_sources(build.machine, command)
    sources += [Source(ROOT / "csrc/tests" / file, command) for file in TESTS]
    program = BUILT / build.name
    link = (*build.cxx, *build.mode)
    checks = Library(f"csrc checks, {build.name}", tuple(sources), link, build.link_libraries)
    build_library(checks, program, program.with_suffix(".objects"), jobs(), print)
    return program


def compile_debug_kernels(build: Build) -> Path:
    """Returns a library of the kernels alone, which nothing runs: its objects are what is meant."""
    mode = mode_flags({"MARLIN_DEBUG": "1"})
    command = (*build.cxx, "-std=c++20", "-fPIC", *mode, *warning_flags())
    library = BUILT / f"{build.machine}-debug-kernels.so"
    sources = kernel_sources(build.machine, command)
    kernels = Library(f"kernels of {build.machine}", tuple(sources), (*build.cxx, "-shared"), ())
    build_library(kernels, library, library.with_suffix(".objects"), jobs(), print)
    return library


def kernel_sources(machine: str, command: tuple[str, ...]) -> list[Source]:
    """The files compiled for one instruction set."""
    flags = isa_flags(machine)
    return [Source(ROOT / "csrc" / file, (*command, *extra)) for file, extra in flags.items()]


def isa_flags(machine: str) -> dict[str, tuple[str, ...]]:
    """The kernels of `machine` and the checks that are compiled like them."""
    kernels = kernel_flags(machine)
    return kernels | {file: kernels[like] for file, like in ISA_TESTS.items() if like in kernels}


def symbols_are_own(build: Build, target: Path) -> bool:
    """Reports what the kernels among the objects of `target` share with other objects."""
    if not kernel_flags(build.machine):
        return True
    objects = target.with_suffix(".objects")
    files = [Path(file) for file in isa_flags(build.machine)]
    kernels = [objects / f"{file.parent}-{file.stem}.o" for file in files]
    found = shared_code(build.cxx, kernels)
    for line in found:
        print(f"  failed: {line}")
    print(f"{'FAIL' if found else 'ok'}  {len(kernels)} objects of {target.name} share no code")
    return not found


def main() -> int:
    """Runs every build of the target; 1 when any case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="native")
    target = parser.parse_args().target
    failed = False
    try:
        builds = TARGETS[target]()
        if kernel_flags(builds[0].machine):
            failed |= not symbols_are_own(builds[0], compile_debug_kernels(builds[0]))
        for build in builds:
            program = compile_checks(build)
            failed |= not symbols_are_own(build, program)
            for title, start in build.runs.items():
                print(f"csrc checks, {title}:", flush=True)
                failed |= subprocess.run([*start, program], check=False).returncode != 0
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
