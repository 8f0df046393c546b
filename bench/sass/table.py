"""Counts the issue slots of the GPU kernels' main loop in their machine code; needs nvcc, no GPU.

python bench/sass/table.py                    compiles and prints the table
python bench/sass/table.py --write            also writes results/sass.md and results/sass.json
python bench/sass/table.py --check            fails with a diff if results/sass.md is another
python bench/sass/table.py --listing half,4,16,128 --architecture 80
                                              the instructions of that loop, with their classes
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "csrc")]

from bench.sass.classes import (  # noqa: E402
    CLASSES,
    OPENED_BYTES,
    alu_count,
    class_of,
    count_classes,
    opened_words,
)
from bench.sass.cubins import ToolError, Usage, compile_gemm, nvcc_version  # noqa: E402
from bench.sass.limits import (  # noqa: E402
    BLOCKS_LAUNCHED,
    GPUS,
    KIB,
    SCHEDULERS,
    Gpu,
    Needs,
    Shares,
)
from bench.sass.listing import Instruction, parse  # noqa: E402
from bench.sass.loops import COPY, PRODUCT, blocks_of, hot_loop, ordinary_way, repeated  # noqa: E402
from bench.sass.variants import Variant  # noqa: E402

RESULTS = ROOT / "bench/results"
LOCAL_MEMORY = ("LDL", "STL")


@dataclass(frozen=True)
class Row:
    """One kernel on one GPU; counts are those of an ordinary iteration, `longest` is that of the
    longest one that is no end of a column.
    """

    gpu: Gpu
    variant: Variant
    usage: Usage
    local_accesses: int
    instructions: list[Instruction]
    longest: int

    @property
    def kib(self) -> float:
        """The warp's part of the weights of an iteration: what several open is shared out."""
        opened = opened_words(self.instructions) * OPENED_BYTES / KIB
        return opened / self.variant.word_warps

    @property
    def needs(self) -> Needs:
        counts = count_classes(self.instructions)
        return Needs(
            slots=len(self.instructions) / self.kib,
            alu=alu_count(self.instructions) / self.kib,
            products=counts["product"] / self.kib,
            # The oldest is waited for while the others are under way; one is being read.
            bytes_in_flight=self.launched_blocks
            * (self.variant.shape.stages - 1)
            * self.variant.streamed_bytes,
            schedulers=min(SCHEDULERS, self.launched_blocks * self.variant.shape.warps),
        )

    @property
    def resident_blocks(self) -> int:
        return self.gpu.multiprocessor.resident_blocks(
            self.variant.threads, self.usage.registers, self.variant.shape.shared_bytes
        )

    @property
    def launched_blocks(self) -> int:
        """Of a multiprocessor, as gemm_plan.cpp has it."""
        return min(BLOCKS_LAUNCHED, self.resident_blocks)

    @property
    def shares(self) -> Shares:
        return self.gpu.shares(self.needs)

    def as_json(self) -> dict[str, Any]:
        return {
            "gpu": self.gpu.name,
            "architecture": self.gpu.architecture,
            **asdict(self.variant),
            "registers": self.usage.registers,
            "spilled_bytes": self.usage.spilled_bytes,
            "local_accesses": self.local_accesses,
            "shared_bytes": self.variant.shape.shared_bytes,
            "resident_blocks": self.resident_blocks,
            "kib": self.kib,
            "longest": self.longest,
            "classes": count_classes(self.instructions),
            **{f"needs_{name}": value for name, value in asdict(self.needs).items()},
            "shares": {name: round(value, 3) for name, value in asdict(self.shares).items()},
        }


def measure(gpu: Gpu) -> list[Row]:
    """Compiles for the GPU and counts every kernel."""
    compiled = compile_gemm(gpu.architecture)
    rows = []
    for name, instructions in parse(compiled.listing).items():
        variant = Variant.of_name(name)
        if variant is None:
            continue
        local = sum(one.name in LOCAL_MEMORY for one in instructions)
        way = iteration(instructions, variant)
        longest = len(iteration(instructions, variant, longest=True))
        rows.append(Row(gpu, variant, compiled.usage[name], local, way, longest))
    return sorted(rows, key=lambda row: order(row.variant))


def order(variant: Variant) -> tuple[bool, int, int, bool, int]:
    """Half first, and channelwise last."""
    is_other = variant.scalar != "half"
    return is_other, variant.bits, variant.rows, variant.has_zeros, -variant.group_rows


def iteration(
    instructions: list[Instruction], variant: Variant, *, longest: bool = False
) -> list[Instruction]:
    """The instructions of an ordinary iteration of the main loop, as often as they are executed.

    How often a loop within runs follows from the words that a tile has to open.
    """
    blocks = blocks_of(instructions)
    loop = hot_loop(blocks)
    words = [opened_words(block.instructions) for block in blocks]
    inside = sum(blocks[i].count([PRODUCT]) for i in loop.blocks)
    wanted = variant.copies, min(variant.products, inside)
    way = ordinary_way(blocks, loop, wanted, longest=longest)
    again = repeated(blocks, loop, way)
    inside = sum(words[i] for i in again)
    if inside:
        outside = sum(words[i] for i in way) - inside
        way += again * ((variant.tile_words - outside) // inside - 1)
    return [one for i in way for one in blocks[i].instructions]


def render(rows: list[Row], version: str) -> str:
    """The table, a part for each GPU."""
    lines = [
        "# Issue slots of the main loop",
        "",
        f"Written by `python bench/sass/table.py --write`, nvcc {version}; "
        "[bench/README.md](../README.md) says what the columns are.",
    ]
    for gpu in GPUS:
        lines += ["", f"## sm_{gpu.architecture} ({gpu.name}: {gpu.cycles_of_kib:.0f} slots a KiB)"]
        lines += ["", *_table([row for row in rows if row.gpu == gpu])]
    return "\n".join(lines) + "\n"


def _table(rows: list[Row]) -> list[str]:
    heads = [
        "kernel",
        "registers",
        "spills",
        "shared KiB",
        "blocks",
        *CLASSES,
        "slots / KiB",
        "at most",
    ]
    heads += ["in flight KiB", "issue", "ALU", "tensor", "latency"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in rows:
        group = str(row.variant.group_rows) if row.variant.group_rows else "columns"
        zeros = ", zeros" if row.variant.has_zeros else ""
        needs, shares = row.needs, row.shares
        bits = ", 8 bits" if row.variant.bits == 8 else ""
        cells = [
            f"{row.variant.scalar}{bits}, {row.variant.rows} rows, {group}{zeros}",
            str(row.usage.registers),
            str(row.usage.spilled_bytes + row.local_accesses),
            f"{row.variant.shape.shared_bytes / KIB:.1f}",
            str(row.resident_blocks),
            *(f"{count / row.kib:.1f}" for count in count_classes(row.instructions).values()),
            f"**{needs.slots:.1f}**",
            f"{row.longest / row.kib:.1f}",
            f"{needs.bytes_in_flight / KIB:.1f}",
            *(f"{share:.0%}" for share in asdict(shares).values()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def faults(rows: list[Row]) -> list[str]:
    """What no table may hold: spills, and a way through the loop that cannot be an iteration."""
    found = [] if rows else ["no kernel of gemm.cu has a name that variants.py knows"]
    for row in rows:
        name = f"sm_{row.gpu.architecture} {row.variant}"
        if row.usage.spilled_bytes or row.local_accesses:
            found.append(f"{name}: spills to local memory")
        variant = row.variant
        counted = {
            "words": (opened_words(row.instructions), variant.tile_words),
            "copies": (sum(one.name == COPY for one in row.instructions), variant.copies),
            "products": (sum(one.name == PRODUCT for one in row.instructions), variant.products),
        }
        found += [
            f"{name}: {have} {what} in an iteration, a tile needs {needs}"
            for what, (have, needs) in counted.items()
            if have != needs
        ]
    return found


def print_listing(rows: list[Row], wanted: str) -> None:
    """The loops of `scalar,bits,rows,group[,zeros]`."""
    for row in rows:
        v = row.variant
        if wanted == f"{v.scalar},{v.bits},{v.rows},{v.group_rows}" + (
            ",zeros" if v.has_zeros else ""
        ):
            for one in row.instructions:
                guard = f"@{one.guard}" if one.guard else ""
                print(f"{one.at:05x} {class_of(one):9} {guard:5} {one.opcode} {one.operands}")


def main() -> int:
    """Counts, prints, and writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--listing", metavar="KERNEL")
    parser.add_argument("--architecture", type=int, choices=[gpu.architecture for gpu in GPUS])
    options = parser.parse_args()
    if options.architecture and (options.write or options.check):
        parser.error("`--write` and `--check` need every architecture")
    gpus = [gpu for gpu in GPUS if options.architecture in (None, gpu.architecture)]
    try:
        version = nvcc_version()
        rows = [row for gpu in gpus for row in measure(gpu)]
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    if options.listing:
        print_listing(rows, options.listing)
        return 0
    text = render(rows, version)
    wrong = faults(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    file = RESULTS / "sass.md"
    if options.check:
        differences = list(
            difflib.unified_diff(
                file.read_text().splitlines(),
                text.splitlines(),
                "committed",
                "computed",
                n=0,
                lineterm="",
            )
        )
        print("\n".join(differences))
        return 1 if differences or wrong else 0
    if options.write:
        file.write_text(text)
        rows_of_json = ",\n".join(json.dumps(row.as_json()) for row in rows)
        content = f'{{"nvcc": "{version}", "rows": [\n{rows_of_json}\n]}}\n'
        file.with_suffix(".json").write_text(content)
    print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
