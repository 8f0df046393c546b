"""The next token from logits: greedy, or by temperature and nucleus (top-p), repeatably random.

Each sequence has a random stream of its own, drawn on the CPU: what it samples depends on the seed
and on its own prompt, not on the device, on the other sequences of the batch, or on torch's global
generator.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from marlin.errors import InvalidArgumentError

__all__ = ["choose", "uniforms"]


def uniforms(seed: int, prompts: Sequence[str], steps: int) -> Tensor:
    """Random numbers in [0, 1) for `steps` tokens of every prompt: float64 (prompts, steps).

    Row i depends on `seed` and on how many equal prompts stand before prompt i. So a prompt draws
    the same in any batch, copies of one prompt draw differently, and fewer steps are a prefix of
    more.
    """
    rows = []
    copies: Counter[str] = Counter()
    for prompt in prompts:
        digest = hashlib.sha256(f"{seed}/{copies[prompt]}".encode()).digest()
        copies[prompt] += 1
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.rand(steps, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def choose(logits: Tensor, draws: Tensor | None, temperature: float, top_p: float) -> Tensor:
    """The next token of every sequence: int64 (n,).

    logits: (n, vocab), any floating dtype.
    draws: float64 (n,) in [0, 1), one number for each sequence; None takes the likeliest token (of
        equal ones, the first), whatever `temperature` and `top_p`.
    temperature: above 0; the logits are divided by it.
    top_p: in (0, 1]; keeps the smallest set of likeliest tokens whose probabilities reach it.

    Raises InvalidArgumentError when the largest logit of a sequence is not finite.
    """
    best, likeliest = logits.max(dim=-1)
    if not bool(torch.isfinite(best).all()):
        raise InvalidArgumentError(
            "`model` must give finite logits, got NaN or infinity: its weights or its dtype do "
            "not fit."
        )
    if draws is None:
        return likeliest
    # The largest is subtracted first: a tiny temperature then underflows to probability 0.
    scaled = (logits.double() - best.double().unsqueeze(-1)) / temperature
    probabilities = scaled.softmax(dim=-1)
    if top_p == 1:
        mass = probabilities.cumsum(dim=-1)
        last = torch.full_like(likeliest, logits.shape[-1] - 1).unsqueeze(-1)  # (n, 1)
        return _invert(mass, last, draws).squeeze(-1)
    probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
    mass = probabilities.cumsum(dim=-1)
    last = ((mass - probabilities) < top_p).sum(dim=-1, keepdim=True) - 1  # (n, 1)
    return order.gather(-1, _invert(mass, last, draws)).squeeze(-1)


def _invert(mass: Tensor, last: Tensor, draws: Tensor) -> Tensor:
    """The place (n, 1), at most `last`, where each cumulative `mass` (n, vocab) passes the draw."""
    target = draws.unsqueeze(-1) * mass.gather(-1, last)
    # Rounding can put the target on the last edge, beyond which there is nothing.
    return torch.searchsorted(mass, target, right=True).minimum(last)
