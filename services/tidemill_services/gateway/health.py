"""The small HTTP pages that machines read: liveness, readiness and metrics."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from tidemill_services.domain.errors import StoreUnavailableError

ReadPage = Callable[[], Awaitable[bytes]]
"""Makes a page in Prometheus' format. Raises StoreUnavailableError."""


def health_routes() -> list[BaseRoute]:
    """What the HTTP port serves without a key: `/healthz` says that the process answers."""

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    return [Route("/healthz", healthz)]


def admin_application(
    scraped: Mapping[str, ReadPage], is_ready: Callable[[], bool], spares: Callable[[], Mapping[str, object]]
) -> Starlette:
    """What the admin port serves: the pages that Prometheus scrapes, `/readyz`, 503 unless it takes calls, `/spares`.

    `spares`: what the processes are that wait to become a replica, as JSON.
    """

    def readyz(_request: Request) -> Response:
        ready = is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", status_code=200 if ready else 503)

    return Starlette(
        routes=[
            *(Route(path, partial(_scraped_page, read)) for path, read in scraped.items()),
            Route("/readyz", readyz),
            Route("/spares", lambda _request: JSONResponse(spares())),
        ]
    )


async def _scraped_page(read: ReadPage, _request: Request) -> Response:
    try:
        return Response(await read(), media_type=CONTENT_TYPE_LATEST)
    except StoreUnavailableError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
