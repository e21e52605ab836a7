"""Pages of other origins in a browser: which of them may use the OpenAI door."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

# What a page's program may read besides the body.
_TOLD = ("x-request-id", "x-tidemill-session", "x-tidemill-cost-microcredits", "retry-after", "x-should-retry")
_ANSWER_SECONDS = 600  # for which a browser need not ask again


def open_to_origins(application: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application for pages of these origins too, `*` for all; each request needs its key all the same.

    Without origins browsers are told nothing, and let no other origin's page read an answer.
    """
    if not origins:
        return application
    return CORSMiddleware(
        application,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_TOLD,
        max_age=_ANSWER_SECONDS,
    )
