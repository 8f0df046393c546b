"""Writes the corpus: PTX of Triton and of CUB, a README of its launches, and what it is made of.

python test/ptx/corpus/write.py /tmp/ptx_corpus --opcodes /tmp/ptx_opcodes.txt
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from case import Argument, Case
from cub_cases import ROOT, compile_to_ptx, cub_cases, toolkit
from triton_cases import triton_cases


def main() -> None:
    arguments = _parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cuda = toolkit()
    cases = [*triton_cases(), *cub_cases(cuda)]
    texts = {_file_name(case): case.ptx for case in cases}
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
        for architecture in ("sm_80", "sm_90a"):
            name = f"marlin_{source.stem}_{architecture}.ptx"
            texts[name] = compile_to_ptx(cuda, source, architecture)
    for name, text in texts.items():
        (arguments.folder / name).write_text(text)
    (arguments.folder / "README").write_text("".join(map(_describe, cases)))
    if arguments.opcodes is not None:
        arguments.opcodes.write_text(_opcode_table(texts))


def _file_name(case: Case) -> str:
    return "cub_kernels.ptx" if case.name.startswith("cub_") else f"{case.name}.ptx"


def _describe(case: Case) -> str:
    lines = [
        f"{case.name}: {_file_name(case)}",
        f"  entry {case.entry}, grid {case.grid}, block {case.block}, "
        f"dynamic shared bytes {case.shared_bytes}, tolerance {case.tolerance}",
    ]
    for number, argument in enumerate(case.arguments):
        result = ", result" if number in case.expected else ""
        lines.append(f"  {number}: {_describe_argument(argument)}{result}")
    return "\n".join(lines) + "\n\n"


def _describe_argument(argument: Argument) -> str:
    if isinstance(argument, np.ndarray):
        return f"pointer to {argument.dtype.name}{list(argument.shape)}"
    return f"{argument.dtype.name} {argument}"


def _opcode_table(texts: dict[str, str]) -> str:
    """Each opcode with its modifiers, how often it stands, and in which files."""
    counts: Counter[str] = Counter()
    files: dict[str, set[str]] = {}
    for name, text in texts.items():
        for opcode in _opcodes(text):
            counts[opcode] += 1
            files.setdefault(opcode, set()).add(name.removesuffix(".ptx"))
    lines = [f"{opcode:60} {counts[opcode]:6}  {_some(files[opcode])}" for opcode in sorted(counts)]
    return "\n".join(lines) + "\n"


def _opcodes(ptx: str) -> Iterable[str]:
    text = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", ptx), flags=re.DOTALL)
    text = re.sub(r"\.section[^{]*\{.*?\}", "", text, flags=re.DOTALL)
    statement = r"(?:^|[;{}:])\s*(?:@!?[%\w]+\s+)?([a-z][a-z0-9_]*(?:\.[\w:]+)*)(?=[\s;][^:])"
    return re.findall(statement, text, flags=re.MULTILINE)


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--opcodes", type=Path, help="also list the instructions, in this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
