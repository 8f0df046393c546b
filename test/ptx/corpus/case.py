"""What a corpus case is: PTX that another compiler wrote, a launch, and what must come of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Argument", "Case", "bfloat16_bits", "from_bfloat16", "parameter_types"]

# In the order of the PTX parameters. An array is passed as a pointer, a numpy scalar by value; a
# null pointer is np.uint64(0). Arrays of uint16 that hold bfloat16 are bits.
Argument = npt.NDArray[np.generic] | np.generic


@dataclass(frozen=True)
class Case:
    """One launch. Arguments that `expected` doesn't name must stay as they were."""

    name: str
    ptx: str
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int  # dynamic: of `extern .shared`
    arguments: list[Argument]
    expected: dict[int, npt.NDArray[np.generic]]  # by number of the argument
    tolerance: float = 0.0  # of the largest expected magnitude
    known_findings: tuple[str, ...] = ()  # kinds of a simulator's findings that are none of ours

    def failures(self, results: dict[int, npt.NDArray[np.generic]]) -> list[str]:
        """What differs, in words; `results` are the arrays after the launch, by number."""
        failures = []
        for number, argument in enumerate(self.arguments):
            if not isinstance(argument, np.ndarray):
                continue
            wanted = self.expected.get(number, argument).astype(np.float64)
            error = np.abs(results[number].astype(np.float64) - wanted)
            allowed = self.tolerance * np.abs(wanted).max() if number in self.expected else 0.0
            wrong = np.argwhere(~(error <= allowed))
            if len(wrong) > 0:
                at = tuple(int(i) for i in wrong[0])
                failures.append(
                    f"{self.name}: {len(wrong)} of {error.size} elements of argument {number} are "
                    f"wrong; at {at}: expected {wanted[at]}, got {results[number][at]}"
                )
        return failures


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounds finite numbers to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def parameter_types(ptx: str, entry: str) -> list[str]:
    """The types of an entry's parameters: .u64, .b32, ..."""
    head = re.search(rf"\.entry {re.escape(entry)}\s*\((.*?)\)", ptx, re.DOTALL)
    if head is None:
        raise ValueError(f"the PTX has no entry {entry}")
    return re.findall(r"\.param\s+(?:\.align \d+\s+)?(\.\w+)", head.group(1))
