"""The build of the native libraries: what it finds, what it rebuilds, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from buildtools import cuda, libraries
from buildtools.compiler import compile_flags, find_cxx, warning_flags
from buildtools.errors import BuildError
from buildtools.native import Library, Source, build_library, install
from buildtools.torch_install import TorchInstall, find_torch, read_torch

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CUDA_TORCH = TorchInstall(Path("/torch"), "2.13.0+cu130", "13.0")
CPU_TORCH = TorchInstall(Path("/torch"), "2.13.0+cpu", None)


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# torch


def fake_torch(root: Path, version_py: str, *, headers: bool = True) -> Path:
    root.mkdir(parents=True)
    (root / "version.py").write_text(version_py)
    if headers:
        header = root / "include/torch/csrc/stable/library.h"
        header.parent.mkdir(parents=True)
        header.touch()
    return root


def test_the_installed_torch_is_found_without_importing_it() -> None:
    assert find_torch().version == torch.__version__
    assert find_torch().cuda == torch.version.cuda
    program = (
        "import sys; from buildtools.torch_install import find_torch; find_torch(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=CSRC, check=True)


@pytest.mark.parametrize(
    ("line", "cuda_version"),
    [
        ("cuda: Optional[str] = '13.0'", "13.0"),
        ("cuda = '12.8'", "12.8"),
        ("cuda: Optional[str] = None", None),
    ],
)
def test_the_cuda_version_of_a_torch_is_read(
    tmp_path: Path, line: str, cuda_version: str | None
) -> None:
    root = fake_torch(tmp_path / "torch", f"__version__ = '2.11.1+x'\n{line}\n")
    assert read_torch(root) == TorchInstall(root, "2.11.1+x", cuda_version)


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0", "2.9.0a0+git123"])
def test_an_old_torch_is_refused(tmp_path: Path, version: str) -> None:
    root = fake_torch(tmp_path / "torch", f"__version__ = '{version}'\n")
    with pytest.raises(BuildError, match=r"expected >= 2.10, got " + version.replace("+", r"\+")):
        read_torch(root)


def test_a_torch_without_headers_is_refused(tmp_path: Path) -> None:
    root = fake_torch(tmp_path / "torch", "__version__ = '2.12.0'\n", headers=False)
    with pytest.raises(BuildError, match=r"no C\+\+ headers"):
        read_torch(root)


# the compiler


def test_a_machine_without_a_compiler_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no C\+\+ compiler on PATH: install g\+\+ >= 11"):
        find_cxx({"PATH": os.fspath(tmp_path)})


def test_a_wrong_cxx_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"`CXX` names nowhere-c\+\+"):
        find_cxx({"PATH": os.fspath(tmp_path), "CXX": "nowhere-c++ -m64"})


def test_a_cxx_that_is_no_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="`CXX` is no command line"):
        find_cxx({"PATH": os.fspath(tmp_path), "CXX": "g++ '"})
    with pytest.raises(BuildError, match=r"no C\+\+ compiler on PATH"):
        find_cxx({"PATH": os.fspath(tmp_path), "CXX": " "})


def test_a_compiler_without_cxx20_is_refused_with_its_own_words(tmp_path: Path) -> None:
    write_script(tmp_path / "c++", "echo unrecognized option >&2; exit 1")
    with pytest.raises(BuildError, match=r"does not compile C\+\+20.*unrecognized option"):
        find_cxx({"PATH": f"{tmp_path}:{os.environ['PATH']}"})


@pytest.mark.parametrize(
    ("environ", "present", "absent"),
    [
        ({}, "-O3", "-g"),
        ({"MARLIN_DEBUG": "1"}, "-O0", "-O3"),
        ({"MARLIN_SANITIZE": "1"}, "-fsanitize=address,undefined", "-O0"),
        ({"CXXFLAGS": "-march=native -DX"}, "-march=native", "-g"),
    ],
)
def test_the_switches_choose_the_flags(environ: dict[str, str], present: str, absent: str) -> None:
    flags = compile_flags(environ, CUDA_TORCH)
    assert present in flags
    assert absent not in flags
    assert "-Werror" in flags


# CUDA


@pytest.mark.parametrize(
    ("choice", "install_", "gpu_present", "wanted"),
    [
        (None, CUDA_TORCH, True, True),
        (None, CUDA_TORCH, False, False),
        (None, CPU_TORCH, True, False),
        ("0", CUDA_TORCH, True, False),
        ("1", CUDA_TORCH, False, True),
    ],
)
def test_marlin_cuda_decides_before_the_machine_does(
    choice: str | None, install_: TorchInstall, gpu_present: bool, wanted: bool
) -> None:
    environ = {} if choice is None else {"MARLIN_CUDA": choice}
    assert cuda.wants_cuda(environ, install_, gpu_present) == wanted


def test_impossible_choices_of_cuda_are_refused() -> None:
    with pytest.raises(BuildError, match="`MARLIN_CUDA`: expected 0 or 1, got 'yes'"):
        cuda.wants_cuda({"MARLIN_CUDA": "yes"}, CUDA_TORCH, True)
    with pytest.raises(BuildError, match="needs a torch built for CUDA"):
        cuda.wants_cuda({"MARLIN_CUDA": "1"}, CPU_TORCH, True)


def fake_toolkit(home: Path, release: str, *, runtime: bool = True) -> Path:
    write_script(home / "bin/nvcc", f"echo 'Cuda compilation tools, release {release}, V1'")
    if runtime:
        (home / "lib64").mkdir()
        (home / f"lib64/libcudart.so.{release.split('.')[0]}").touch()
    return home


def test_nvcc_is_taken_from_cuda_home_before_path(tmp_path: Path) -> None:
    home = fake_toolkit(tmp_path / "home", "13.1")
    other = fake_toolkit(tmp_path / "other", "13.0")
    environ = {"CUDA_HOME": os.fspath(home), "PATH": f"{other}/bin:{os.environ['PATH']}"}
    toolkit = cuda.find_cuda(environ, CUDA_TORCH)
    assert toolkit.nvcc == home / "bin/nvcc"
    assert toolkit.runtime == "libcudart.so.13"
    assert cuda.find_cuda({"PATH": environ["PATH"]}, CUDA_TORCH).nvcc == other / "bin/nvcc"


def test_nvcc_of_another_cuda_is_passed_over_and_named(tmp_path: Path) -> None:
    old = fake_toolkit(tmp_path / "old", "12.4")
    right = fake_toolkit(tmp_path / "right", "13.0")
    environ = {"CUDA_HOME": os.fspath(old), "PATH": f"{right}/bin:{os.environ['PATH']}"}
    assert cuda.find_cuda(environ, CUDA_TORCH).nvcc == right / "bin/nvcc"
    # CUDA 99, so that no package of this environment can serve.
    torch_99 = TorchInstall(Path("/torch"), "9.9", "99.0")
    with pytest.raises(BuildError, match=r"no nvcc of CUDA 99.*of CUDA 12.4.*marlin-torch\[cuda99"):
        cuda.find_cuda(environ, torch_99)


def test_a_toolkit_without_its_run_time_is_refused(tmp_path: Path) -> None:
    home = fake_toolkit(tmp_path / "home", "13.0", runtime=False)
    with pytest.raises(BuildError, match=r"no libcudart.so.13"):
        cuda.find_cuda({"CUDA_HOME": os.fspath(home), "PATH": ""}, CUDA_TORCH)


def test_without_torch_cuda_13_goes_before_12(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # no package of NVIDIA
    old = fake_toolkit(tmp_path / "old", "12.4")
    new = fake_toolkit(tmp_path / "new", "13.0")
    path = os.environ["PATH"]
    both = {"CUDA_HOME": os.fspath(old), "PATH": f"{new}/bin:{path}"}
    assert cuda.find_any_cuda(both).nvcc == new / "bin/nvcc"
    assert cuda.find_any_cuda({"PATH": f"{old}/bin:{path}"}).nvcc == old / "bin/nvcc"
    with pytest.raises(BuildError, match=r"no nvcc of CUDA 13 or 12: set CUDA_HOME, or `pip"):
        cuda.find_any_cuda({"PATH": ""})


# compiling


class Project:
    """A library of two files and a header, in a folder with a space in its name."""

    def __init__(self, root: Path) -> None:
        self.root = root / "with space"
        self.root.mkdir()
        self.target = self.root / "out" / "lib.so"
        self.reports: list[str] = []
        self.write("shared.h", "int one();\n")
        self.write("a.cpp", '#include "shared.h"\nint one() { return 1; }\n')
        self.write("b.cpp", "int two() { return 2; }\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(text)
        # Newer than anything built so far, however coarse the clock of the file system is.
        newest = max((p.stat().st_mtime_ns for p in self.root.rglob("*")), default=0)
        os.utime(path, ns=(newest + 10**9, newest + 10**9))

    def build(self, *flags: str) -> list[str]:
        cxx = find_cxx(os.environ)
        sources = tuple(
            Source(self.root / name, (*cxx, "-fPIC", *flags)) for name in ("a.cpp", "b.cpp")
        )
        library = Library("lib", sources, (*cxx, "-shared"), ())
        reports: list[str] = []
        build_library(library, self.target, self.root / "objects", 2, reports.append)
        for built in [self.target, *(self.root / "objects").iterdir()]:
            newest = max(p.stat().st_mtime_ns for p in self.root.glob("*.*"))
            os.utime(built, ns=(newest, newest))
        return [line.split("] ")[-1] for line in reports if not line.startswith("built")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_only_what_changed_is_compiled(project: Project) -> None:
    assert sorted(project.build()) == ["a.cpp", "b.cpp"]
    assert project.build() == ["lib is up to date"]
    project.write("b.cpp", "int two() { return 22; }\n")
    assert project.build() == ["b.cpp"]
    project.write("shared.h", "int one();\n// changed\n")
    assert project.build() == ["a.cpp"]
    assert sorted(project.build("-DX")) == ["a.cpp", "b.cpp"]


def test_a_deleted_output_is_made_again(project: Project) -> None:
    project.build()
    project.target.unlink()
    project.build()
    assert project.target.is_file()
    (project.root / "objects/with space-b.o").unlink()
    assert project.build() == ["b.cpp"]


def test_another_torch_compiles_everything_again() -> None:
    older = TorchInstall(Path("/torch"), "2.12.0", "13.0")
    assert compile_flags({}, CUDA_TORCH) != compile_flags({}, older)


def test_a_copied_checkout_compiles_its_own_sources(project: Project, tmp_path: Path) -> None:
    project.build()
    copy = tmp_path / "copy" / project.root.name
    shutil.copytree(project.root, copy)
    project.root = copy
    assert sorted(project.build()) == ["a.cpp", "b.cpp"]


def test_a_compile_error_shows_the_command_and_the_message(project: Project) -> None:
    project.write("b.cpp", "int two() { return nothing; }\n")
    with pytest.raises(BuildError, match=r"(?s)b\.cpp.*nothing"):
        project.build()
    project.write("b.cpp", "int two() { return 2; }\n")
    assert "b.cpp" in project.build()


def test_installing_keeps_the_file_that_a_process_has_open(tmp_path: Path) -> None:
    built, target = tmp_path / "built.so", tmp_path / "target.so"
    target.write_bytes(b"old")
    os.utime(target, ns=(0, 0))
    built.write_bytes(b"new")
    with target.open("rb") as mapped:
        install(built, target)
        assert mapped.read() == b"old"
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built.so", "target.so"]


# the project's own build


def test_every_source_belongs_to_a_library() -> None:
    library = libraries.cpu_library(ROOT, {"PATH": os.environ["PATH"]})
    listed = {source.path for source in library.sources}
    for machine in ("x86_64", "aarch64"):
        listed |= {CSRC / name for name in libraries.kernel_flags(machine)}
    on_disk = {p for p in CSRC.rglob("*.cpp") if not {"tests", "cuda"} & {*p.parts}}
    assert listed == on_disk


def test_an_architecture_has_kernels_of_its_own() -> None:
    x86, arm = libraries.kernel_flags("x86_64"), libraries.kernel_flags("aarch64")
    assert not {*x86} & {*arm}
    assert libraries.kernel_flags("AMD64") == x86
    assert libraries.kernel_flags("arm64") == arm
    assert libraries.kernel_flags("riscv64") == {}


def test_the_checks_for_arm64_say_what_to_install(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "csrc/tests/run.py", "--target", "arm64"],
        cwd=ROOT,
        env={"PATH": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "need aarch64-linux-gnu-g++ and qemu-aarch64 on PATH" in result.stderr
    assert "g++-aarch64-linux-gnu qemu-user" in result.stderr
    assert "Traceback" not in result.stderr


def run_setup(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_ends_with_one_sentence_when_it_cannot_build() -> None:
    result = run_setup("build_ext", MARLIN_CUDA="maybe")
    assert result.returncode != 0
    assert "error: `MARLIN_CUDA`: expected 0 or 1, got 'maybe'" in result.stderr
    assert "Traceback" not in result.stderr


def test_metadata_does_not_import_torch() -> None:
    program = (
        "import runpy, sys; sys.argv = ['setup.py', '--name']; "
        "runpy.run_path('setup.py', run_name='__main__'); "
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("marlin-torch")


@pytest.mark.slow
def test_a_build_from_nothing_makes_a_library_that_loads(tmp_path: Path) -> None:
    folders = (f"--build-lib={tmp_path}/lib dir", f"--build-temp={tmp_path}/temp dir")
    result = run_setup("build_ext", *folders, MARLIN_CUDA="0")
    assert result.returncode == 0, result.stderr
    library = tmp_path / "lib dir/marlin/_C.abi3.so"
    program = f"import torch; torch.ops.load_library({os.fspath(library)!r}); torch.ops.marlin.gemm"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("source", sorted((ROOT / "bench").glob("*.cpp")), ids=lambda p: p.name)
def test_the_sources_of_the_benches_compile(source: Path) -> None:
    # They are compiled when a bench runs, which no test does.
    command = [*find_cxx(os.environ), "-std=c++20", *warning_flags(), "-fsyntax-only", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
