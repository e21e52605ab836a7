"""Every page of the public HTTP port."""

from starlette.routing import BaseRoute

from tidemill_services.gateway.health import health_routes
from tidemill_services.gateway.openai import openai_routes
from tidemill_services.generation import Generations
from tidemill_services.store.database import Database


def public_routes(database: Database, generations: Generations) -> list[BaseRoute]:
    """What the door lets through."""
    return [*health_routes(), *openai_routes(database, generations)]
