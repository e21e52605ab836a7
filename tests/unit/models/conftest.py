"""Small tokenizers, trained here, of the kinds that published models have."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

TEXT = [
    "The tide mill grinds the grain when the tide is low, and rests when the tide is high.",
    "A miller waits for the water; the water waits for the moon. 1, 2, 3 sacks of flour!",
    "user assistant system end begin <|end|> Grüße aus der Mühle, kleine Änderung, naïve café",
] * 4
CONTROL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="session")
def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3, Qwen: bytes, BPE; one marker is not marked special, and runs of spaces are tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("<tool>", normalized=False), "    "])
    return tokenizer


@pytest.fixture(scope="session")
def sentencepiece_bpe() -> tokenizers.Tokenizer:
    """As Mistral and newer Llama 2 conversions: metaspace only at a text's start, byte fallback."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *CONTROL]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=[f"<0x{byte:02X}>" for byte in range(256)]
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


@pytest.fixture(scope="session")
def unigram() -> tokenizers.Tokenizer:
    """As T5 and XGLM: Unigram behind NFKC, with `</s>` and `<0xNN>` among its ordinary pieces."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
    characters = sorted(set("".join(TEXT)) - {" "})
    pieces += [(character, -5.0) for character in characters] + [("▁the", -3.0), ("▁tide", -3.5), ("ill", -3.5)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


@pytest.fixture(scope="session", params=["byte_level", "sentencepiece_bpe", "unigram"])
def any_kind(request) -> tokenizers.Tokenizer:
    return request.getfixturevalue(request.param)
