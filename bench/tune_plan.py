"""Measures what csrc/cpu/plan.cpp chooses between, on the kernels of this machine.

    python bench/tune_plan.py [PATH ...] [--out FILE]

Without names of paths (`avx512_bf16`, `avx2`, ...) all that this machine can run but `generic`.
Two tables: nanoseconds per row of activations for 1024 columns, with the codes opened in registers
for each pass and once for all (`decode_once_rows`: where the ratio passes 1), and by the rows whose
panels are held together (`kPanelBytes`: where time per row begins to grow).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "csrc")]

from buildtools.compiler import find_cxx, mode_flags, warning_flags  # noqa: E402
from buildtools.errors import BuildError  # noqa: E402
from buildtools.libraries import TORCH_FREE_SOURCES, jobs, kernel_flags  # noqa: E402
from buildtools.native import Library, Source, build_library  # noqa: E402


def build() -> Path:
    """Builds bench/tune_plan.cpp with the kernels; returns the program."""
    cxx = find_cxx(os.environ)
    mode = mode_flags({})
    command = (*cxx, "-std=c++20", *mode, *warning_flags())
    per_file = dict.fromkeys(TORCH_FREE_SOURCES, ()) | kernel_flags(platform.machine())
    sources = [Source(ROOT / "csrc" / file, (*command, *per_file[file])) for file in per_file]
    sources.append(Source(ROOT / "bench/tune_plan.cpp", command))
    program = ROOT / "build/bench/tune-plan"
    library = Library("tune_plan", tuple(sources), (*cxx, *mode), ("-pthread",))
    build_library(library, program, program.with_suffix(".objects"), jobs(), print)
    return program


def main() -> int:
    """Runs the program and prints its measurements as tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--out", type=Path, help="also write the measurements as JSON")
    options = parser.parse_args()
    try:
        program = build()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = []
    with subprocess.Popen([program, *options.paths], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            cell = json.loads(line)
            results.append(cell)
            ratio = cell["in_registers_ns"] / cell["once_ns"]
            print(
                f"{cell['subject']:16} {cell['path']:12} {cell['activation']:8}"
                f" k {cell['k']:5} group {cell['group_size']:3} rows {cell['rows']:3}"
                f" | in registers {cell['in_registers_ns']:8.0f} ns/row"
                f" | once {cell['once_ns']:8.0f} ns/row | once is x{ratio:.2f}",
                flush=True,
            )
    if process.returncode != 0:
        print(f"error: {program} ended with {process.returncode}", file=sys.stderr)
        return 1
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
