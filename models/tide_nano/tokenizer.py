"""The byte-level BPE tokenizer and the layout of a conversation in tokens.

Special tokens come only from the chat template, which writes `< |` for every `<|` in a message, so that nobody can
end a turn or open another from inside a message. A runtime that encodes a plain prompt sets
`tokenizer.encode_special_tokens = True`, and puts `<|bos|>` in front by its id.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 2048
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, BOS, END, SYSTEM, USER, ASSISTANT = range(len(SPECIAL_TOKENS))
ROLE_TOKENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def train_tokenizer(conversations: Path) -> Tokenizer:
    """A tokenizer learned from the messages of a file that `write_text.py` wrote."""
    tokenizer = Tokenizer(models.BPE())
    # Each digit is a token of its own: sums are learned from digits.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with conversations.open(encoding="utf-8") as file:
        texts = (message["content"] for line in file for message in json.loads(line)["messages"])
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def conversation_ids(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """The tokens of a conversation as the chat template lays them out, and which of them the assistant says."""
    ids, said = [BOS], [False]
    for message in messages:
        content = [*tokenizer.encode(message["content"]).ids, END]
        ids += [ROLE_TOKENS[message["role"]], *content]
        said += [False] + [message["role"] == "assistant"] * len(content)
    return ids, said


def plain_ids(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], list[bool]]:
    """The same for a plain prompt without chat: its answer follows at once."""
    before, after = [BOS, *tokenizer.encode(prompt).ids], [*tokenizer.encode(answer).ids, END]
    return before + after, [False] * len(before) + [True] * len(after)
