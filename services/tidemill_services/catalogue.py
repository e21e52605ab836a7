"""The registered models with what it takes to encode prompts for them, also while they are stopped."""

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tidemill_models import errors as model_errors
from tidemill_models.chat import Message
from tidemill_models.manifest import Manifest
from tidemill_models.package import load_package
from tidemill_models.prompt_encoder import PromptEncoder
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_services.domain.errors import (
    ChatTemplateRefusedError,
    ChatUnsupportedError,
    ContextExceededError,
    FieldInvalidError,
    ModelFailedError,
    ModelRequiredError,
    PromptEmptyError,
    RoleUnknownError,
    TidemillError,
)
from tidemill_services.domain.generation import ChatInput, PromptInput
from tidemill_services.domain.model import ModelRecord
from tidemill_services.identity import Caller
from tidemill_services.store import models
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.memory import Memory
from tidemill_services.store.topics import MODELS, model_topic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A registered model, ready to take prompts."""

    name: str
    digest: str
    encoder: PromptEncoder

    @property
    def manifest(self) -> Manifest:
        """What the package says."""
        return self.encoder.manifest

    @property
    def context_length(self) -> int:
        """Tokens, prompt and answer together."""
        return self.encoder.context_length

    async def encode(self, prompt: PromptInput | ChatInput, field: str) -> list[int]:
        """The prompt's tokens; raises the typed error of what is wrong with it, naming `field`."""
        try:
            if isinstance(prompt, PromptInput):
                return await self.encoder.encode_prompt(prompt.prompt)
            return await self.encoder.encode_chat(
                [Message(role, content) for role, content in prompt.messages],
                add_generation_prompt=prompt.add_generation_prompt,
                template=prompt.template or None,
            )
        except (model_errors.PromptError, model_errors.TemplateError) as error:
            raise _refusal(error, field) from error
        except model_errors.TemplateRendererError as error:
            logger.warning("a chat for %s was not rendered: %s", self.name, error)
            raise ModelFailedError(f"Chats for {self.name} cannot be rendered now: try again.") from error


_REFUSALS: dict[type[model_errors.ModelError], type[TidemillError]] = {
    model_errors.EmptyPromptError: PromptEmptyError,
    model_errors.PromptTooLongError: ContextExceededError,
    model_errors.UnknownRoleError: RoleUnknownError,
    model_errors.ChatNotSupportedError: ChatUnsupportedError,
    model_errors.UnknownTemplateError: ChatTemplateRefusedError,
    model_errors.TemplateError: ChatTemplateRefusedError,
}


def _refusal(error: model_errors.ModelError, field: str) -> TidemillError:
    """The catalogue's error for one of the model's; any other fault of a prompt is an invalid field."""
    refusal = next((made for kind, made in _REFUSALS.items() if isinstance(error, kind)), FieldInvalidError)
    sentence = str(error)
    return refusal(sentence[:1].upper() + sentence[1:].rstrip(".") + ".", field=field)


def resolve_model(tx: Transaction, caller: Caller, name: str, field: str = "model") -> ModelRecord:
    """A unit of work: the record of that model; an empty name means the key's default model, else the only one.

    It needs nothing of the package but what was registered. Raises ModelNotFoundError, and ModelRequiredError, which
    lists the names and says in which field of the request one is missing.
    """
    if name or caller.default_model:
        return models.get_model(tx, name or caller.default_model or "")
    records = models.list_models(tx)
    if len(records) == 1:
        return records[0]
    listed = ", ".join(record.name for record in records) or "none is registered"
    raise ModelRequiredError(f"Name a model, or give the key a default one; there is: {listed}.", field=field)


def _topic_of(names: tuple[str, str], record: ModelRecord) -> str:
    """A model that is named hangs on itself; one that is the only one hangs on all."""
    return model_topic(record.name) if any(names) else MODELS


class Catalogue:
    """All registered models, by name; a model's tokenizer is read when it is first asked for."""

    def __init__(self, database: Database, renderer: TemplateRenderer) -> None:
        self._renderer = renderer
        self._records = Memory[tuple[str, str], ModelRecord](database, _topic_of)
        self._served: dict[str, ServedModel] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def resolve(self, caller: Caller, name: str) -> ServedModel:
        """The model that `resolve_model` finds, ready to take prompts.

        Raises what that does, and ModelFailedError when its package is not on disk as it was registered.
        """
        record = await self._records.ask((name, caller.default_model or ""), resolve_model, caller, name)
        served = self._served.get(record.name)
        if served is not None and served.digest == record.digest:
            return served
        async with self._loading[record.name]:
            served = self._served.get(record.name)
            if served is None or served.digest != record.digest:
                served = self._served[record.name] = await self._load(record)
            return served

    async def _load(self, record: ModelRecord) -> ServedModel:
        try:
            encoder = await asyncio.to_thread(self._read_encoder, Path(record.package_path))
        except (model_errors.ModelPackageError, OSError) as error:
            logger.warning("the package of %s cannot be read: %s", record.name, error)
            raise ModelFailedError(
                f"The package of {record.name} cannot be read any more; the server's log says why."
            ) from error
        if encoder.manifest.digest != record.digest:
            raise ModelFailedError(
                f"The package of {record.name} changed since it was registered: the server must be restarted."
            )
        return ServedModel(record.name, record.digest, encoder)

    def _read_encoder(self, folder: Path) -> PromptEncoder:
        return PromptEncoder.from_package(load_package(folder), self._renderer)
