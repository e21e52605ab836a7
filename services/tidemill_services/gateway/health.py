"""The small HTTP pages that machines read: liveness, readiness and metrics."""

from collections.abc import Awaitable, Callable

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route


def health_routes() -> list[BaseRoute]:
    """What the HTTP port serves without a key: `/healthz` says that the process answers."""

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    return [Route("/healthz", healthz)]


def admin_application(read_metrics: Callable[[], Awaitable[bytes]], is_ready: Callable[[], bool]) -> Starlette:
    """What the admin port serves: `/metrics` of this process, and `/readyz`, 503 unless it takes calls."""

    async def metrics(_request: Request) -> Response:
        return Response(await read_metrics(), media_type=CONTENT_TYPE_LATEST)

    def readyz(_request: Request) -> Response:
        ready = is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", status_code=200 if ready else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/readyz", readyz)])
