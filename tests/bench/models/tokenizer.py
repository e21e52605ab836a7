"""A byte-level tokenizer of any size: all bytes, then letters in twos, threes and fours."""

import itertools
import string

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.bench.models.shapes import SPECIAL_TOKENS


def make_tokenizer(vocabulary_size: int) -> Tokenizer:
    """The same for the same size."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate((*SPECIAL_TOKENS, *alphabet))}
    merges: list[tuple[str, str]] = []
    starts = list(itertools.chain("Ġ", string.ascii_lowercase))
    while len(vocabulary) < vocabulary_size:
        longer = []
        for start, letter in itertools.product(starts, string.ascii_lowercase):
            if len(vocabulary) == vocabulary_size:
                break
            vocabulary[start + letter] = len(vocabulary)
            merges.append((start, letter))
            longer.append(start + letter)
        starts = longer
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
