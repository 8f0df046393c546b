"""Measure a trained folder and write its model card: `python training/card.py models/stdlib-6m`.

Reads training.json, which train.py leaves in the folder. Needs the package `marlin` with its
operators built, because the card says what 4 bits cost.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from marlin.generation import generate
from marlin.models import LoadedModel, load_model
from marlin.perplexity import PerplexityResult, measure_perplexity

# Name in the table, dtype, options of `quantize_`; the first is what the others are compared with.
_VARIANTS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("bfloat16, as shipped", "bfloat16", None),
    ("float32", "float32", None),
    ("4 bits, group 128", "bfloat16", {"group_size": 128}),
    ("4 bits, group 128, zero points", "bfloat16", {"group_size": 128, "symmetric": False}),
    ("4 bits, group 32", "bfloat16", {"group_size": 32}),
    ("4 bits, group 32, zero points", "bfloat16", {"group_size": 32, "symmetric": False}),
)
_SAMPLED = (0, 2)  # places in _VARIANTS
_PROMPTS = ('def read_text(self, path, encoding="utf-8"):', "class Queue:")
_SAMPLING: dict[str, Any] = {"max_new_tokens": 160, "temperature": 0.6, "top_p": 0.9, "seed": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_card(parser.parse_args().folder)


def write_card(folder: Path) -> None:
    """Measures the model in `folder` and writes its README.md."""
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    text = (folder / "heldout.txt").read_text(encoding="utf-8")
    rows: list[str] = []
    samples: list[str] = []
    reference = math.nan
    for place, (name, dtype, options) in enumerate(_VARIANTS):
        loaded = load_model(folder, dtype=dtype, quantize=options)
        result = measure_perplexity(loaded.model, loaded.tokenizer, text)
        reference = result.perplexity if place == 0 else reference
        rows.append(_row(name, loaded, result, reference, len(text.encode())))
        print(rows[-1], flush=True)
        if place in _SAMPLED:
            samples += [_sample(name, loaded, prompt) for prompt in _PROMPTS]
        loaded.dispose()
    card = _CARD.format(
        name=folder.name,
        rows="\n".join(rows),
        samples="\n\n".join(samples),
        held_out="\n".join(f"- `{path}`" for path in facts["held_out_files"]),
        dropped=", ".join(f"`{path}`" for path in facts["dropped_files"]) or "none",
        recipe=_table(facts["recipe"]),
        epochs=facts["tokens_seen"] / facts["corpus_tokens"],
        tokens=result.tokens,
        context=facts["recipe"]["context_length"],
        temperature=_SAMPLING["temperature"],
        top_p=_SAMPLING["top_p"],
        seed=_SAMPLING["seed"],
        **{key: value for key, value in facts.items() if key != "recipe"},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _row(
    name: str, loaded: LoadedModel, result: PerplexityResult, reference: float, size: int
) -> str:
    weight_bytes = loaded.info()["weight_bytes"]
    assert isinstance(weight_bytes, int)
    bits_per_byte = result.nll * result.tokens / math.log(2) / size
    change = (result.perplexity / reference - 1) * 100
    return (
        f"| {name} | {weight_bytes / 1e6:.2f} MB | {result.perplexity:.3f} | {change:+.2f} % "
        f"| {bits_per_byte:.4f} |"
    )


def _sample(name: str, loaded: LoadedModel, prompt: str) -> str:
    chunks = generate(loaded.model, loaded.tokenizer, prompt, **_SAMPLING)
    text = prompt + "".join(chunk.text for chunk in chunks)
    return f"{name}:\n\n```python\n{text.rstrip()}\n```"


def _table(values: dict[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())


_CARD = """\
# {name}

A Llama-architecture model of about 6 million parameters, trained from nothing on the sources of
Python's standard library, with a context of {context} tokens. It exists to be measured, quantized
and run in a demo and in tests: its text looks like the standard library and says nothing true.

## Perplexity on held-out text

`heldout.txt`: {tokens} tokens of whole modules that were not trained on, in windows of the whole
context without overlap (`marlin.perplexity`). Bytes are those that the process holds, with the
embedding, which stays in bfloat16.

| | weights | perplexity | change | bits per byte |
|---|---|---|---|---|
{rows}

## Samples

Temperature {temperature}, top-p {top_p}, seed {seed}. The first line is the prompt.

{samples}

## Data

The `.py` files of the standard library of Python {python}: {train_files} files, {train_bytes}
bytes, {corpus_tokens} tokens. Left out: tests, installed packages, generated files, tables. Digest
of the corpus: `{corpus_sha256}`.

Held out by whole files, chosen by a hash of their paths:

{held_out}

Not trained on, because they share lines with a held-out file: {dropped}.

The sources are under the licence of Python; `LICENSE.txt` here is its text.

## Training

{steps} steps, {tokens_seen} tokens ({epochs:.1f} epochs) in {minutes} minutes on {threads} CPU
threads that the run shared with other work; torch {torch}, bfloat16 autocast. Muon for the
matrices, AdamW for the embedding and the norms; the learning rate warms up and then follows a
cosine over wall-clock time. Training loss at the end, a running mean: {training_loss} nats.

| | |
|---|---|
{recipe}

`training/` in the repository holds the programs that make such a model and this page.
"""


if __name__ == "__main__":
    main()
