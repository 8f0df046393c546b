"""What `quantize_` did to a model, as plain values and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

__all__ = ["LayerReport", "QuantizeReport", "SkippedLayer"]


@dataclass(frozen=True)
class LayerReport:
    """One layer that was replaced.

    shape: (out_features, in_features).
    bytes_before, bytes_after: of the weight in memory, without bias.
    relative_error: |W - W'| / |W| in the Frobenius norm.
    """

    name: str
    shape: tuple[int, int]
    bytes_before: int
    bytes_after: int
    relative_error: float


@dataclass(frozen=True)
class SkippedLayer:
    """One Linear that was left as it was, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize_` did; `print` shows it as a table."""

    method: str
    bits: int
    group_size: int
    symmetric: bool
    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...]

    @property
    def bytes_before(self) -> int:
        """Bytes of the replaced weights before."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the replaced weights now."""
        return sum(layer.bytes_after for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights that are in few bits now."""
        return sum(layer.shape[0] * layer.shape[1] for layer in self.layers)

    @property
    def mean_relative_error(self) -> float:
        """Mean of the layers' relative errors, weighted by their number of weights."""
        if not self.layers:
            return 0.0
        total = sum(r.relative_error * r.shape[0] * r.shape[1] for r in self.layers)
        return total / self.parameters

    def to_dict(self) -> dict[str, object]:
        """Plain dicts, lists, strings and numbers."""
        return {
            "method": self.method,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "parameters": self.parameters,
            "mean_relative_error": self.mean_relative_error,
            "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers],
            "skipped": [asdict(layer) for layer in self.skipped],
        }

    def __str__(self) -> str:
        zero_points = "symmetric" if self.symmetric else "with zero points"
        lines = [
            f"{self.method}, {self.bits} bits, group size {self.group_size}, {zero_points}: "
            f"{len(self.layers)} layers replaced, {len(self.skipped)} left as they are"
        ]
        width = max((len(layer.name) for layer in self.layers), default=0)
        width = max(width, len("total"))
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"  {layer.name:<{width}}  {shape:>14}  {_megabytes(layer.bytes_before)} ->"
                f" {_megabytes(layer.bytes_after)}  error {layer.relative_error:.4f}"
            )
        lines.append(
            f"  {'total':<{width}}  {self.parameters:>14}  {_megabytes(self.bytes_before)} ->"
            f" {_megabytes(self.bytes_after)}  error {self.mean_relative_error:.4f}"
        )
        reasons = Counter(layer.reason for layer in self.skipped)
        for reason, count in reasons.items():
            first = next(layer.name for layer in self.skipped if layer.reason == reason)
            more = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"  left: {first}{more}: {reason}")
        return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:9.3f} MB"
