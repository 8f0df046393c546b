"""What `kernel_info` says of the CPU and of CUDA, in each state of libraries, torch and GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from buildtools.compiler import find_cxx

import marlin
from marlin import ops
from marlin.errors import UnsupportedError
from marlin.library import CPU_LIBRARY
from tests.devices import CUDA
from tests.package_copy import run_in_copy

CSRC = Path(__file__).resolve().parents[2] / "csrc"

GPU = """
import torch
torch.cuda.is_available = lambda: True
torch.cuda.current_device = lambda: 1
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_name = lambda index: ["NVIDIA T4", "NVIDIA A10"][index]
torch.cuda.get_device_capability = lambda index: [(7, 5), (8, 6)][index]
"""
ASK = """
import marlin
try:
    info = marlin.kernel_info({device!r})
    print(info.device, info.kernel, info.available, info.gpu, info.compute_capability)
    print(info.reason)
    print(info.library.name, info.torch_version)
except marlin.errors.MarlinError as error:
    print(error.code)
    print(error)
"""

needs_cuda_torch = pytest.mark.skipif(
    torch.version.cuda is None, reason="torch is built without CUDA"
)


@pytest.fixture(scope="module")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the CUDA library says of itself, without its operators."""
    library = tmp_path_factory.mktemp("library") / "_C_cuda.so"
    command = (
        *find_cxx(os.environ),
        *("-std=c++20", "-shared", "-fPIC", '-DMARLIN_TORCH_VERSION="2.99.0"'),
        *(os.fspath(CSRC / "cuda/kernel_info.cpp"), "-o", os.fspath(library)),
    )
    subprocess.run(command, check=True)
    return library.read_bytes()


def ask(folder: Path, device: str, libraries: dict[str, bytes], before: str = GPU) -> list[str]:
    return run_in_copy(
        folder, before + ASK.format(device=device), {"_C": CPU_LIBRARY.read_bytes(), **libraries}
    )


def test_without_an_argument_it_is_the_cpu() -> None:
    info = marlin.kernel_info()
    assert info == ops.kernel_info("cpu")
    assert info.device == "cpu"
    assert info.kernel in info.available
    assert info.available[-1] == "generic"
    assert info.threads == torch.get_num_threads()
    assert info.library.is_file()
    assert info.torch_version.count(".") >= 2
    assert info.gpu is None
    assert info.compute_capability is None


def test_other_devices_have_no_kernel() -> None:
    with pytest.raises(UnsupportedError, match=r"expected tensors on .*, got meta"):
        ops.kernel_info("meta")


@needs_cuda_torch
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so_whether_the_library_is_there_or_not() -> None:
    with pytest.raises(UnsupportedError, match="finds no CUDA GPU"):
        ops.kernel_info("cuda")


@pytest.mark.parametrize("device", [CUDA])
def test_the_gpu_of_this_machine_is_served(device: str) -> None:
    info = ops.kernel_info(device)
    assert info.device == f"cuda:{torch.cuda.current_device()}"
    assert info.gpu == torch.cuda.get_device_name()
    assert info.compute_capability == torch.cuda.get_device_capability()
    assert info.kernel in info.available
    assert info.library.is_file()


@needs_cuda_torch
def test_a_gpu_is_named_with_the_kernel_that_serves_it(tmp_path: Path, cuda_library: bytes) -> None:
    assert ask(tmp_path, "cuda", {"_C_cuda": cuda_library}) == [
        "cuda:1 mma_sync ('mma_sync',) NVIDIA A10 (8, 6)",
        "tensor cores by mma.sync, copies by cp.async: NVIDIA A10 has compute capability 8.6",
        "_C_cuda.abi3.so 2.99.0",
    ]


@needs_cuda_torch
@pytest.mark.parametrize(
    ("device", "code", "message"),
    [
        ("cuda:0", "unsupported", "NVIDIA T4 has compute capability 7.5, and the kernels need 8.0"),
        ("cuda:2", "invalid_argument", "expected a GPU below cuda:2, of which there are 2"),
    ],
)
def test_a_gpu_that_is_too_old_or_absent_is_told(
    tmp_path: Path, cuda_library: bytes, device: str, code: str, message: str
) -> None:
    lines = ask(tmp_path, device, {"_C_cuda": cuda_library})
    assert lines[0] == code
    assert message in lines[1]


@needs_cuda_torch
@pytest.mark.parametrize(
    ("libraries", "message"),
    [
        ({}, "_C_cuda.abi3.so does not exist"),
        ({"_C_cuda": b"no library"}, "does not load in torch"),
    ],
    ids=["missing", "broken"],
)
def test_a_gpu_without_its_library_says_how_to_build_it(
    tmp_path: Path, libraries: dict[str, bytes], message: str
) -> None:
    code, sentence = ask(tmp_path, "cuda", libraries)
    assert code == "extension_missing"
    assert message in sentence
    assert "MARLIN_CUDA=1 npm run build:ext" in sentence


def test_a_torch_without_cuda_is_told(tmp_path: Path) -> None:
    code, sentence = ask(tmp_path, "cuda", {}, "import torch; torch.version.cuda = None")
    assert code == "unsupported"
    assert "expected a torch built for CUDA" in sentence


CALL = """
import torch
from marlin import ops
from marlin.errors import MarlinError
from tests.on_cuda import on_cuda
try:
    ops.repack(on_cuda(8, 64, dtype=torch.int32), 64, 64)
except MarlinError as error:
    print(error.code)
    print(error)
"""


@needs_cuda_torch
def test_a_call_on_a_gpu_without_the_library_says_how_to_build_it(tmp_path: Path) -> None:
    tests = os.fspath(Path(__file__).parents[1])
    program = f"import sys; sys.path.append({tests!r})\n{CALL}"
    code, sentence = run_in_copy(tmp_path, program, {"_C": CPU_LIBRARY.read_bytes()})
    assert code == "extension_missing"
    assert "MARLIN_CUDA=1 npm run build:ext" in sentence
