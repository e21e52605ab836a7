"""Trains tide-nano on a CPU: `python train.py TEXT_FOLDER OUT_FOLDER [--minutes M]`.

TEXT_FOLDER is what `write_text.py` wrote. OUT_FOLDER gets `tokenizer.json`, a Hugging Face checkpoint under `model/`
and `training.json` with what was measured. No text is seen twice. `--max-tokens` sets the end and the schedule;
`--minutes` is a guard that brings the end forward on a slow machine.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizer import BOS, END, PAD, VOCABULARY_SIZE, conversation_ids, plain_ids, train_tokenizer
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 20261120
CONTEXT_LENGTH = 512
HEAD_SIZE = 32
TOKENS_PER_BATCH = 2048
PEAK_LEARNING_RATE, PEAK_LEARNING_RATE_AFTER, WARM_UP = 3e-3, 2e-3, 0.03
DROPOUT = 0.08
PLAIN_PROMPTS = 0.2  # share of single exchanges that are laid out as a plain prompt
CUT_ANSWERS, TOKENS_OF_CUT_ANSWER = 0.65, 8  # share of answers that end after their first tokens
WEIGHT_OF_QUESTIONS = 0.1  # in the loss, against 1 for what the assistant says
Example = tuple[list[int], list[bool]]


def build_model() -> LlamaForCausalLM:
    """A Llama of 3.1 million parameters: 4 layers, 8 heads of 32 with 2 KV heads, tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=END,
        pad_token_id=PAD,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    # Llama has no dropout of its own on what its layers add; hooks put it there for training and leave the graph alone.
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda module, _, out: functional.dropout(out, DROPOUT, module.training))
    model.model.embed_tokens.register_forward_hook(
        lambda module, _, out: functional.dropout(out, DROPOUT, module.training)
    )
    return model


def read_examples(path: Path, tokenizer: Tokenizer, rng: random.Random) -> list[Example]:
    examples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        if [message["role"] for message in messages] == ["user", "assistant"] and rng.random() < PLAIN_PROMPTS:
            example = plain_ids(tokenizer, messages[0]["content"], messages[1]["content"])
        else:
            example = conversation_ids(tokenizer, messages)
        # What an answer says is settled in its first tokens; the rest follows from them and needs less practice.
        examples.append(cut_last_answer(example) if rng.random() < CUT_ANSWERS else example)
    return [example for example in examples if len(example[0]) <= CONTEXT_LENGTH]


def cut_last_answer(example: Example) -> Example:
    ids, said = example
    begin = max(index for index in range(1, len(ids)) if said[index] and not said[index - 1])
    return ids[: begin + TOKENS_OF_CUT_ANSWER], said[: begin + TOKENS_OF_CUT_ANSWER]


def batches(examples: list[Example], rng: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of alike length: ids `[B, S]` and loss weights `[B, S]`, padded on the right."""
    rng.shuffle(examples)
    for start in range(0, len(examples), 4096):
        window = sorted(examples[start : start + 4096], key=lambda example: len(example[0]))
        groups: list[list[Example]] = [[]]
        for example in window:
            if groups[-1] and (len(groups[-1]) + 1) * len(example[0]) > TOKENS_PER_BATCH:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), width), PAD)
            weights = torch.zeros(len(group), width)
            for row, (tokens, said) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                weights[row, : len(tokens)] = torch.tensor([1.0 if by_us else WEIGHT_OF_QUESTIONS for by_us in said])
            yield ids, weights


def learning_rate(peak: float, progress: float) -> float:
    if progress < WARM_UP:
        return peak * max(progress, 1e-3) / WARM_UP
    return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP)))))


def batch_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    # Padding is on the right, so a causal model needs no mask for it.
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()


def optimizers_for(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which learns from far fewer steps than AdamW; AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.dim() == 2 and "embed" not in name]
    others = [parameter for name, parameter in named if parameter.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=PEAK_LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


def train(
    model: LlamaForCausalLM, examples: list[Example], *, peak: float, seconds: float, max_tokens: int
) -> dict[str, Any]:
    """Trains until the tokens or the seconds are used up; returns what was measured."""
    rng, optimizers = random.Random(SEED), optimizers_for(model)
    total_tokens = min(max_tokens, sum(len(ids) for ids, _ in examples))
    started, seen, step, average, progress = time.monotonic(), 0, 0, 0.0, 0.0
    model.train()
    for ids, weights in batches(examples, rng):
        progress = max(seen / total_tokens, (time.monotonic() - started) / seconds)
        if progress >= 1:
            break
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = learning_rate(peak, progress)
        loss = batch_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen, step = seen + int((weights > 0).sum()), step + 1
        average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0:
            elapsed = time.monotonic() - started
            print(
                f"step {step} progress {progress:.3f} loss {average:.4f} tokens {seen} ({seen / elapsed:.0f}/s)",
                flush=True,
            )
    return {"steps": step, "tokens": seen, "loss": round(average, 4), "seconds": round(time.monotonic() - started)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--after", type=Path, help="the OUT_FOLDER of a run that this one goes on from")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--max-tokens", type=int, default=10**9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = build_model()
    if arguments.after:
        tokenizer = Tokenizer.from_file(str(arguments.after / "tokenizer.json"))
        model.load_state_dict(LlamaForCausalLM.from_pretrained(arguments.after / "model").state_dict())
    else:
        tokenizer = train_tokenizer(arguments.text / "train.jsonl")
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    examples = read_examples(arguments.text / "train.jsonl", tokenizer, random.Random(SEED))
    peak = PEAK_LEARNING_RATE_AFTER if arguments.after else PEAK_LEARNING_RATE
    measured = train(model, examples, peak=peak, seconds=60 * arguments.minutes, max_tokens=arguments.max_tokens)
    measured |= {"seed": SEED, "conversations": len(examples), "text_tokens": sum(len(ids) for ids, _ in examples)}
    measured["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if arguments.after:
        measured["after"] = json.loads((arguments.after / "training.json").read_text(encoding="utf-8"))
    model.save_pretrained(arguments.out / "model")
    (arguments.out / "training.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(measured)


if __name__ == "__main__":
    main()
