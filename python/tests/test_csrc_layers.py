"""Which file of csrc may include what: the layers of docs/architecture.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from buildtools import libraries

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = sorted(
    path
    for path in CSRC.rglob("*")
    if path.suffix in {".h", ".cpp", ".cu", ".cuh"} and "tests" not in path.parts
)

# registration > ops: the only files that see Torch.
TORCH_FILES = {
    "common/arguments.cpp",
    "common/arguments.h",
    "cpu/ops.h",
    "cpu/ops_gemm.cpp",
    "cpu/ops_layout.cpp",
    "cuda/devices.cpp",
    "cuda/devices.h",
    "cuda/ops.h",
    "cuda/ops_gemm.cpp",
    "cuda/ops_layout.cpp",
    "cuda/registration.cpp",
    "registration.cpp",
}


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(CSRC).as_posix()


def reached(path: Path) -> set[Path]:
    """The file and every file of csrc that it includes, directly or not."""
    found: set[Path] = set()
    pending = [path]
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found.add(current)
        neighbours = (current.parent / include for include in includes(current))
        pending += [neighbour.resolve() for neighbour in neighbours if neighbour.is_file()]
    return found


def test_only_registration_and_ops_include_torch() -> None:
    using = {name(p) for p in SOURCES if any(i.startswith("torch/") for i in includes(p))}
    assert using == TORCH_FILES


def test_only_the_stable_part_of_torch_is_included() -> None:
    for path in SOURCES:
        for include in includes(path):
            if include.startswith(("torch/", "ATen/", "c10/")):
                assert include.startswith(("torch/csrc/stable/", "torch/headeronly/")), name(path)


def test_kernels_reach_no_torch_header() -> None:
    kernels = [p for p in SOURCES if name(p) not in TORCH_FILES]
    for path in kernels:
        assert not {name(p) for p in reached(path)} & TORCH_FILES, name(path)


# Compiled for one instruction set each, and the path for any CPU.
PATHS = [p for p in SOURCES if p.match("cpu/path_*.cpp")]


def test_every_path_but_the_generic_one_has_flags_of_its_own() -> None:
    flags = libraries.kernel_flags("x86_64") | libraries.kernel_flags("aarch64")
    assert {name(p) for p in PATHS} == {*flags, "cpu/path_generic.cpp"}
    assert all(flags.values())


@pytest.mark.parametrize(
    "path", [p for p in PATHS if p.stem != "path_generic"], ids=lambda p: p.name
)
def test_files_of_one_instruction_set_share_no_inline_function(path: Path) -> None:
    # The linker may keep their copy of a shared inline function for all callers.
    others = reached(path) - {path}
    templates = ("isa_*.h", "kernel_*.h", "formats_*.h")
    plain = {p.name for p in others if not any(p.match(pattern) for pattern in templates)}
    assert plain == {"microkernel.h", "weights.h"}
    assert "isa_generic.h" not in {p.name for p in others}
    system = {i for p in reached(path) for i in includes(p) if not (p.parent / i).is_file()}
    assert system <= {
        "arm_neon.h",
        "cstddef",
        "cstdint",
        "immintrin.h",
        "type_traits",
        "utility",
    }


def test_nothing_outside_cuda_includes_cuda() -> None:
    for path in SOURCES:
        if "cuda" in path.relative_to(CSRC).parts:
            continue
        assert not [i for i in includes(path) if "cuda" in i], name(path)
