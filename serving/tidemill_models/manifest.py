"""What a package's `model.toml` says, parsed strictly. The format is described in docs/model-package.md."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import cast, get_args

from tidemill_models.errors import ModelPackageError
from tidemill_models.manifest_tables import (
    MANIFEST_NAME,
    read_chat,
    read_decoder,
    read_defaults,
    read_files,
    read_name,
    read_prices,
    read_scaling,
)
from tidemill_models.package_specs import ChatSpec, DecoderSpec, Defaults, EngineName, FileDigest, Prices, ScalingPolicy
from tidemill_models.strict_table import StrictTable

FORMAT = 1

_ENGINES = get_args(EngineName)
_STANDARD = Defaults()
_LATER_DEFAULTS = (
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)  # later than the first format


@dataclass(frozen=True)
class Manifest:
    """A parsed model.toml. Two manifests with one digest describe models that answer alike."""

    name: str
    description: str
    license: str
    engine: EngineName
    prices: Prices
    files: Mapping[str, FileDigest]
    decoder: DecoderSpec | None = None  # there if and only if engine is "decoder"
    chat: ChatSpec | None = None  # None: the model takes prompts only
    defaults: Defaults = field(default_factory=Defaults)
    scaling: ScalingPolicy = field(default_factory=ScalingPolicy)

    @classmethod
    def from_toml(cls, text: str, *, path: str = MANIFEST_NAME) -> "Manifest":
        """Parse model.toml; `path` only names it in errors. Raises ModelPackageError."""
        try:
            value = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also of a number with too many digits
            raise ModelPackageError(f"is not valid TOML: {error}", path=path) from error
        return _manifest(StrictTable(value, path=path))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse what `to_json` wrote, as strictly as model.toml. Raises ModelPackageError."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelPackageError(f"is not valid JSON: {error}", path="manifest") from error
        return _manifest(StrictTable(value, path="manifest"))

    def to_json(self) -> str:
        """The canonical JSON: defaults written out, keys sorted, no spaces, no key for what is not there."""
        tables = {key: value for key, value in asdict(self).items() if value is not None}
        if self.decoder is not None:  # what is absent in model.toml is absent here
            for key in ("bos_token_id", "shared_prefixes", "cache_tokens"):
                if (value := getattr(self.decoder, key)) is None or value is False:
                    del tables["decoder"][key]
            if self.decoder.cache == "in-place":
                del tables["decoder"]["cache"]
        for name in _LATER_DEFAULTS:  # so that a package which does not set them keeps the digest that it had
            if getattr(self.defaults, name) == getattr(_STANDARD, name):
                del tables["defaults"][name]
        return json.dumps({"format": FORMAT, **tables}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """The model digest: SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _manifest(table: StrictTable) -> Manifest:
    table.integer("format", least=FORMAT, most=FORMAT)
    engine = table.string("engine")
    if engine not in _ENGINES:
        raise table.error("engine", f"must be one of {', '.join(_ENGINES)}, not {engine[:64]!r}")
    files = read_files(table.table("files"))
    manifest = Manifest(
        name=read_name(table),
        description=table.string("description", max_length=1000),
        license=table.string("license"),
        engine=cast("EngineName", engine),
        prices=read_prices(table.table("prices")),
        files=files,
        decoder=read_decoder(table.table("decoder"), files) if engine == "decoder" else None,
        chat=read_chat(table.table("chat"), files) if "chat" in table else None,
        defaults=read_defaults(table.table("defaults", optional=True)),
        scaling=read_scaling(table.table("scaling", optional=True)),
    )
    table.end()
    return manifest
