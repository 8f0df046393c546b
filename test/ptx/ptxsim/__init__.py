"""A functional simulator of NVIDIA PTX: see ../README.md."""

from .report import Finding, InstructionCount, Options, Report, Traffic, counted_as
from .simulator import Buffer, Entry, Parameter, Simulator, SimulatorError

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
    "counted_as",
]
