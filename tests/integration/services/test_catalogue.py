"""The catalogue on a real store with a real package."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.databases import sqlite_file
from tests.server_process import MODELS
from tidemill_models.package import load_package
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_services.catalogue import Catalogue
from tidemill_services.domain.api_key import Role
from tidemill_services.domain.errors import ModelFailedError
from tidemill_services.domain.generation import ChatInput, PromptInput
from tidemill_services.identity import Caller
from tidemill_services.store import models
from tidemill_services.store.database import Database
from tidemill_services.store.sqlite import SqliteDatabase

CALLER = Caller("account", "key", Role.USER, None)
CHAT = ChatInput(messages=(("user", "hello"),), add_generation_prompt=True, template="")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = SqliteDatabase(sqlite_file(tmp_path))
    await database.open()
    package = load_package(MODELS / "tiny-llama")
    await database.write(
        models.register_model,
        name=package.manifest.name,
        digest=package.digest,
        manifest_json=package.manifest.to_json(),
        package_path=str(package.folder),
    )
    yield database
    await database.close()


@pytest.fixture
def renderer() -> Iterator[TemplateRenderer]:
    with TemplateRenderer(num_processes=1) as renderer:
        yield renderer


async def test_first_callers_at_once_share_one_reading_of_the_tokenizer(
    database: Database, renderer: TemplateRenderer
) -> None:
    catalogue = Catalogue(database, renderer)
    first, *others = await asyncio.gather(*(catalogue.resolve(CALLER, "tiny-llama") for _ in range(8)))
    assert all(other is first for other in others)


async def test_a_chat_that_cannot_be_rendered_now_is_a_typed_error_and_a_prompt_goes_on(
    database: Database, renderer: TemplateRenderer
) -> None:
    served = await Catalogue(database, renderer).resolve(CALLER, "tiny-llama")
    assert await served.encode(CHAT, "input")
    renderer.close()
    with pytest.raises(ModelFailedError, match="try again"):
        await served.encode(CHAT, "input")
    assert await served.encode(PromptInput("hello"), "input")


@pytest.mark.rule("A12")
async def test_no_name_means_the_only_model_where_there_is_one(database: Database, renderer: TemplateRenderer) -> None:
    assert (await Catalogue(database, renderer).resolve(CALLER, "")).name == "tiny-llama"
