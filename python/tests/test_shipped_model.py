"""The model that the repository ships: whole, small, and little worse in 4 bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marlin.generation import generate
from marlin.models import LoadedModel, load_model
from marlin.perplexity import measure_perplexity

FOLDER = Path(__file__).parents[2] / "models" / "stdlib-6m"
MAX_BYTES = 16_000_000
TOKENS = 6000

# Samples from a 4-bit model in a process of its own, and prints the tokens.
PROGRAM = """
import json, sys
from tests.test_shipped_model import sample
json.dump(sample(), sys.stdout)
"""


def sample() -> list[list[int]]:
    """Tokens of a seeded sample from the model in 4 bits."""
    loaded = load_model(FOLDER, quantize={"group_size": 128})
    options: dict[str, Any] = {"max_new_tokens": 100, "temperature": 0.8, "top_p": 0.95, "seed": 1}
    prompts = ["def main():", "class Queue:"]
    tokens: list[list[int]] = [[], []]
    for chunk in generate(loaded.model, loaded.tokenizer, prompts, **options):
        tokens[chunk.index] += chunk.tokens
    return tokens


def _perplexity(loaded: LoadedModel) -> float:
    text = (FOLDER / "heldout.txt").read_text(encoding="utf-8")
    return measure_perplexity(loaded.model, loaded.tokenizer, text, max_tokens=TOKENS).perplexity


@pytest.fixture(scope="module")
def full_precision() -> float:
    return _perplexity(load_model(FOLDER))


def test_the_folder_is_small_and_says_where_it_comes_from() -> None:
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert sum(files.values()) < MAX_BYTES
    assert {"README.md", "LICENSE.txt", "training.json"} <= files.keys()


def test_the_model_knows_its_language(full_precision: float) -> None:
    # Of 4096 tokens; the card has the exact value on all of the text.
    assert full_precision < 30


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"group_size": 32}])
def test_4_bits_cost_less_than_5_percent_of_perplexity(
    full_precision: float, options: dict[str, Any]
) -> None:
    rounded = _perplexity(load_model(FOLDER, quantize=options))
    assert rounded < 1.05 * full_precision


def test_a_seeded_sample_in_4_bits_is_equal_in_another_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert json.loads(result.stdout) == sample()
