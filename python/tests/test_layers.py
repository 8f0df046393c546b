"""The layers of docs/architecture.md, held up by walking the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "marlin"
SOURCES = sorted(PACKAGE.rglob("*.py"))
WORKER = "marlin.worker"

# A module of the numerics imports those above it in this list only.
NUMERICS = [
    "errors",
    "library",
    "kernel_info",
    "ops",
    "activations",
    "codes",
    "primitives",
    "act_order",
    "rounding",
    "layouts",
    "packed_weight",
    "quantized_linear",
    "linear",
    "report",
    "fusing",
    "selection",
    "quantize",
    "safetensors_reader",
    "safetensors_writer",
    "quantization_config",
    "model_state",
    "checkpoint_files",
    "checkpoint_info",
    "checkpoint",
    "classic",
]
TORCH_FREE = ("server", "router", "protocol", "limits")
BEYOND_THE_CORE = {"transformers", "tokenizers", "zmq", "msgspec"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below `node` but what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from run_time_nodes(child)


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports at run time; for `from a import b` both a and a.b."""
    found: set[str] = set()
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent)
    for node in run_time_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = f"{package}.{base}".rstrip(".")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


IMPORTS = {module_name(path): imports_of(path) for path in SOURCES}


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_list_of_numeric_modules_is_true() -> None:
    assert {f"marlin.{name}" for name in NUMERICS} <= set(IMPORTS)


@pytest.mark.parametrize("module", NUMERICS)
def test_numerics_import_downwards(module: str) -> None:
    below = {f"marlin.{name}" for name in NUMERICS[: NUMERICS.index(module)]}
    ours = {name for name in IMPORTS[f"marlin.{module}"] if name in IMPORTS and name != "marlin"}
    assert ours <= below


@pytest.mark.parametrize("module", NUMERICS)
def test_numerics_need_nothing_but_torch(module: str) -> None:
    for name in IMPORTS[f"marlin.{module}"]:
        assert name.split(".")[0] not in BEYOND_THE_CORE


def test_errors_import_nothing() -> None:
    assert {name.split(".")[0] for name in IMPORTS["marlin.errors"]} <= {"__future__", "typing"}


def test_nothing_outside_of_the_worker_imports_it() -> None:
    upward = [
        (module, name)
        for module, names in IMPORTS.items()
        if not under(module, WORKER)
        for name in names
        if under(name, WORKER)
    ]
    assert upward == []


def test_only_handlers_bridge_to_the_numerics() -> None:
    free = {"marlin", "marlin.errors"}
    bridges = [
        (module, name)
        for module, names in IMPORTS.items()
        if under(module, WORKER) and not under(module, f"{WORKER}.handlers")
        for name in names
        if name in IMPORTS and not under(name, WORKER) and name not in free
    ]
    assert bridges == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_the_protocol_and_the_server_import_no_torch(module: str) -> None:
    assert not any(under(name, "torch") for name in IMPORTS[f"{WORKER}.{module}"])


def test_the_protocol_imports_no_other_module_of_the_worker() -> None:
    ours = {name for name in IMPORTS[f"{WORKER}.protocol"] if name in IMPORTS}
    assert {name for name in ours if under(name, WORKER)} <= {WORKER}


@pytest.mark.parametrize(
    ("word", "owner"),
    [
        ("load_library", "marlin.library"),
        ("_C.abi3", "marlin.library"),
        ("marlin_cpu_kernel_info", "marlin.kernel_info"),
        ("torch.ops.marlin", "marlin.ops"),
    ],
)
def test_only_one_module_touches_the_compiled_library_in_each_way(word: str, owner: str) -> None:
    assert [module_name(path) for path in SOURCES if word in path.read_text()] == [owner]


def test_the_operators_know_nothing_of_the_numerics() -> None:
    ours = {name for name in IMPORTS["marlin.ops"] if name in IMPORTS and name != "marlin"}
    assert ours == {"marlin.errors", "marlin.kernel_info", "marlin.library"}


FORBIDDEN_IMPORTS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "torch.jit.load", "compile"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_source_unpickles_or_evaluates(path: Path) -> None:
    for name in IMPORTS[module_name(path)]:
        assert name.split(".")[0] not in FORBIDDEN_IMPORTS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS


LIGHT_PROGRAM = """
import sys
import marlin
heavy = {"transformers", "tokenizers", "zmq", "msgspec", "safetensors"} & set(sys.modules)
assert not heavy, heavy
for name in marlin.__all__:
    getattr(marlin, name)
"""


def test_importing_the_package_is_light_and_gives_every_public_name() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIGHT_PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


MISSING_PROGRAM = """
import pathlib
real = pathlib.Path.is_file
pathlib.Path.is_file = lambda self: real(self) and not self.name.startswith("_C")
import marlin
from torch import nn
try:
    marlin.Int4Linear.from_linear(nn.Linear(32, 8))
except marlin.errors.ExtensionMissingError as err:
    print(err.code)
"""


def test_without_the_extension_the_package_imports_and_says_so_when_used() -> None:
    result = subprocess.run(
        [sys.executable, "-c", MISSING_PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "extension_missing\n"
