"""A functional simulator of NVIDIA PTX: see ../README.md."""

from .simulator import (
    Buffer,
    Entry,
    Finding,
    InstructionCount,
    Options,
    Parameter,
    Report,
    Simulator,
    SimulatorError,
    Traffic,
)

__all__ = [
    "Buffer",
    "Entry",
    "Finding",
    "InstructionCount",
    "Options",
    "Parameter",
    "Report",
    "Simulator",
    "SimulatorError",
    "Traffic",
]
