"""Train the demo model: `python training/train.py --minutes 60 --out models/stdlib-6m`.

The learning rate follows elapsed wall-clock time, so that the run anneals to its end in whatever
time it is given; every random choice is seeded. Text, tokenizer and the model card are the business
of the files beside this one.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from card import write_card
from corpus import Corpus, collect, license_text
from tokenizer import END_OF_TEXT, train_tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger("training")


@dataclass(frozen=True)
class Recipe:
    """Every number that shapes the result."""

    seed: int = 1
    vocab_size: int = 4096
    context_length: int = 512
    hidden_size: int = 256
    layers: int = 6
    intermediate_size: int = 768
    heads: int = 4
    kv_heads: int = 2
    batch_size: int = 8  # windows a step; with a small budget, more steps beat larger ones
    muon_lr: float = 6e-3  # in AdamW's units (update RMS matched)
    adam_lr: float = 3e-3
    weight_decay: float = 0.1
    warmup_seconds: float = 30.0
    clip_norm: float = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="checkpoints")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: its default)")
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0)
    parser.add_argument("--muon-lr", type=float, default=Recipe.muon_lr)
    parser.add_argument("--adam-lr", type=float, default=Recipe.adam_lr)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = Recipe(
        muon_lr=arguments.muon_lr, adam_lr=arguments.adam_lr, batch_size=arguments.batch_size
    )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)

    corpus = collect()
    tokenizer = train_tokenizer(
        [document.text for document in corpus.train], recipe.vocab_size, recipe.context_length
    )
    tokens = encode(corpus, tokenizer, recipe.seed)
    logger.info("%d files, %d tokens to train on", len(corpus.train), len(tokens))

    model = build_model(recipe, tokenizer)
    facts = train(model, tokens, corpus, tokenizer, recipe, arguments)
    write_folder(arguments.out, model, tokenizer, corpus, facts)
    logger.info("measuring")
    write_card(arguments.out)
    logger.info("wrote %s", arguments.out)


def encode(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, seed: int) -> Tensor:
    """All training files in one seeded order, each with the end-of-text token: int64 (n,)."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    assert isinstance(end, int)
    generator = torch.Generator().manual_seed(seed)
    stream: list[int] = []
    for index in torch.randperm(len(corpus.train), generator=generator).tolist():
        stream += tokenizer.backend_tokenizer.encode(corpus.train[index].text).ids
        stream.append(end)
    return torch.tensor(stream)


def windows(tokens: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Endless batches (batch_size, context_length + 1); each epoch shifts and shuffles windows."""
    generator = torch.Generator().manual_seed(recipe.seed)
    length = recipe.context_length
    while True:
        shift = int(torch.randint(length, (), generator=generator))
        starts = torch.arange(shift, len(tokens) - length, length)
        order = starts[torch.randperm(len(starts), generator=generator)]
        for begin in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[begin : begin + recipe.batch_size]
            yield torch.stack([tokens[start : start + length + 1] for start in chosen.tolist()])


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Loss(nn.Module):
    """Mean cross entropy of a window; one module, so that one compilation covers all of it."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor) -> Tensor:
        hidden = self.model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden)
        return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def train(
    model: LlamaForCausalLM,
    tokens: Tensor,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """Train until the budget is spent; returns the facts of the run."""
    # Muon orthogonalises the update of a matrix; embedding and norms stay with AdamW.
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.muon_lr,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(others, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    peaks: tuple[tuple[torch.optim.Optimizer, float], ...] = (
        (muon, recipe.muon_lr),
        (adam, recipe.adam_lr),
    )

    loss_of = torch.compile(Loss(model))
    held_out = held_out_windows(corpus, tokenizer, recipe)
    budget = arguments.minutes * 60
    batches = windows(tokens, recipe)
    model.train()
    started = time.monotonic()
    next_checkpoint = arguments.checkpoint_minutes * 60
    next_report = 0.0
    step, seen, smooth = 0, 0, float("nan")
    while (elapsed := time.monotonic() - started) < budget:
        scale = min(1.0, elapsed / recipe.warmup_seconds, schedule(elapsed / budget))
        for optimizer, peak in peaks:
            for group in optimizer.param_groups:
                group["lr"] = peak * scale
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for optimizer, _ in peaks:
            optimizer.step()
            optimizer.zero_grad()
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError(f"the loss is {value} at step {step}; lower the learning rates")
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        step += 1
        seen += batch[:, 1:].numel()
        if elapsed >= next_report:
            next_report = elapsed + 15
            logger.info(
                "%5.1f of %.1f min  step %5d  %6.2f M tokens  loss %.3f  lr x %.2f  %.0f tokens/s",
                elapsed / 60,
                arguments.minutes,
                step,
                seen / 1e6,
                smooth,
                scale,
                seen / max(elapsed, 1.0),
            )
        if elapsed >= next_checkpoint:
            next_checkpoint = elapsed + arguments.checkpoint_minutes * 60
            facts = run_facts(recipe, step, seen, elapsed, smooth, corpus, tokens)
            write_folder(arguments.work / "checkpoint", model, tokenizer, corpus, facts)
            logger.info("checkpoint; held-out loss %.3f", held_out_loss(model, held_out))
    return run_facts(recipe, step, seen, time.monotonic() - started, smooth, corpus, tokens)


def held_out_windows(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Tensor:
    """Held-out windows (32, context_length + 1), spread evenly, to watch the run by."""
    stream: list[int] = []
    for document in corpus.held_out:
        stream += tokenizer.backend_tokenizer.encode(document.text).ids
    whole = torch.tensor(stream).unfold(0, recipe.context_length + 1, recipe.context_length)
    return whole[torch.linspace(0, len(whole) - 1, 32).long()]


def held_out_loss(model: LlamaForCausalLM, held_out: Tensor) -> float:
    """Mean cross entropy of the held-out windows in nats per token."""
    loss_of = Loss(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        losses = [float(loss_of(window.unsqueeze(0))) for window in held_out]
    return sum(losses) / len(losses)


def schedule(progress: float) -> float:
    """Cosine from 1 to 0 over the run."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def run_facts(
    recipe: Recipe,
    steps: int,
    seen: int,
    seconds: float,
    loss: float,
    corpus: Corpus,
    tokens: Tensor,
) -> dict[str, object]:
    return {
        "recipe": asdict(recipe),
        "steps": steps,
        "tokens_seen": seen,
        "corpus_tokens": len(tokens),
        "minutes": round(seconds / 60, 1),
        "training_loss": round(loss, 4),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "corpus_sha256": corpus.sha256,
        "train_files": len(corpus.train),
        "train_bytes": sum(len(document.text.encode()) for document in corpus.train),
        "held_out_files": [document.path for document in corpus.held_out],
        "dropped_files": list(corpus.dropped),
    }


def write_folder(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    facts: dict[str, object],
) -> None:
    """Write a bfloat16 model as transformers reads it, with its facts and the held-out text."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    nn.Module.to(copy, torch.bfloat16)
    make_generation_config: Any = GenerationConfig  # not annotated
    copy.generation_config = make_generation_config(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "heldout.txt").write_text(
        "\n".join(document.text for document in corpus.held_out), encoding="utf-8"
    )
    (folder / "LICENSE.txt").write_text(license_text(), encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
