"""The parts of a model package, as its manifest describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EngineName = Literal["decoder", "tensor", "triton"]
CacheKind = Literal["in-place", "grows"]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file of the package must be: its SHA-256 in hex, and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """What our decoder engine needs to know; `graph` and `tokenizer` are names in `Manifest.files`."""

    graph: str
    tokenizer: str
    context_length: int  # tokens, prompt and answer together
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None  # put in front of a plain prompt
    shared_prefixes: bool = False  # what is computed for a prompt serves all accounts, not its own alone
    cache_tokens: int | None = None  # that one replica's KV cache may hold; None: the context length for each slot
    cache: CacheKind = "in-place"  # "grows": every run copies the whole cache, which is slow


@dataclass(frozen=True, slots=True)
class ChatSpec:
    """How messages become a prompt: `templates` maps a template's name to its file."""

    template: str  # the one that is used unless a caller names another
    roles: tuple[str, ...]
    templates: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The sampling that is used where a caller sends nothing."""

    max_tokens: int = 300
    temperature: float = 0.5
    top_p: float = 0.9
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0  # 0: no limit
    repetition_penalty: float = 1.0  # 1: none
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Prices:
    """In microcredits; 1 credit = 1,000,000 microcredits."""

    session_per_second: int
    input_per_million_tokens: int
    output_per_million_tokens: int


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How many replicas a model has, and when it rests."""

    min_replicas: int = 0
    max_replicas: int = 1
    target_generations_per_replica: int = 8
    idle_timeout_seconds: int = 7200
    slots: int = 8  # generations that one replica runs at once
