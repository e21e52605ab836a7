"""What every HTTP request passes before its page: who calls, what an error becomes, what is counted.

Default is to deny: a page is served without a key only when it is listed here.
"""

import asyncio
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from tidemill_services.domain.errors import ApiKeyMissingError, DrainingError, NotServedError, TidemillError
from tidemill_services.faults import log_fault
from tidemill_services.gateway.http_errors import MethodNotAllowedError, error_response
from tidemill_services.identity import Caller, Identities
from tidemill_services.metrics import Metrics

OPEN_PATHS = frozenset({"/healthz"})


class Door:
    """The public HTTP port's application."""

    def __init__(self, routes: Sequence[BaseRoute], identities: Identities, metrics: Metrics) -> None:
        self._router = Router(routes, redirect_slashes=False)
        self._identities = identities
        self._metrics = metrics
        self._draining = False

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        arrived = time.monotonic()
        answer = _Answer(send)
        reason = ""
        scope["app"] = self  # has the router raise what it does not find, instead of answering in its own shape
        try:
            if scope["path"] not in OPEN_PATHS:
                scope["state"]["caller"] = await self._identify(scope)
            await self._router(scope, receive, answer.send)
        except (asyncio.CancelledError, ClientDisconnect) as error:
            reason = "CLIENT_GONE"
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 -- the door is where every error becomes an answer
            refusal = _refusal(error)
            reason = refusal.reason
            if not answer.status:
                await error_response(refusal)(scope, receive, answer.send)
        finally:
            route = getattr(scope.get("route"), "path", "")
            self._metrics.http_requests.labels(route, str(answer.status), reason).inc()
            self._metrics.http_request_seconds.labels(route).observe(time.monotonic() - arrived)

    async def _identify(self, scope: Scope) -> Caller:
        if self._draining:
            raise DrainingError(retry_after_seconds=1)
        return await self._identities.identify(_api_key(scope))


class _Answer:
    """Sends, and knows what was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0  # none was sent yet

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _api_key(scope: Scope) -> str:
    scheme, _, api_key = Headers(scope=scope).get("authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not api_key:
        raise ApiKeyMissingError("No API key came with the request: send the header `Authorization: Bearer <key>`.")
    return api_key.strip()


def _refusal(error: Exception) -> TidemillError:
    if isinstance(error, TidemillError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotServedError("This server has no such page.")
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowedError((error.headers or {}).get("Allow", ""))
    return log_fault(error, "an HTTP request")
