"""Builds the CUDA library and runs the tests of the GPU: `python test/gpu/run.py`, without Node.

    python test/gpu/run.py                  all; what follows goes to pytest, as -k graph or -x
    python test/gpu/run.py --no-build       with the library that is there
    python test/gpu/run.py --device cpu     tries the tests without a GPU, on the CPU's operators

Needs torch >= 2.10, numpy, pytest and setuptools, a C++ compiler, and nvcc of torch's CUDA in
CUDA_HOME or on PATH. The package need not be installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true", help="take the library that is there")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options, arguments = parser.parse_known_args()
    if not options.no_build and not build(options.device):
        return 1
    return run_tests(options.device, arguments)


def build(device: str) -> bool:
    """Builds the libraries beside the Python sources; whether that went well."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    wanted = {"MARLIN_CUDA": "1" if device == "cuda" else "0"}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **wanted}).returncode == 0


def run_tests(device: str, arguments: list[str]) -> int:
    """Pytest's exit code; 2 without a GPU, where it would skip all. Warnings are shown, and no
    failures: another torch may have others."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU; `--device cpu` tries the tests without one", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-W", "default", "test/gpu"]
    wanted = {"MARLIN_GPU_TESTS_ON": device, "GOMP_SPINCOUNT": "1000"}
    return subprocess.run([*command, *arguments], cwd=ROOT, env={**os.environ, **wanted}).returncode


if __name__ == "__main__":
    sys.exit(main())
