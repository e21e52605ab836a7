"""What every HTTP request passes before its page: who calls and what they may, what an error becomes, what is counted.

Default is to deny: a page is served without a key only when it is listed here.
"""

import asyncio
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Router
from starlette.types import Message, Receive, Scope, Send

from tidemill_services.access import PAGES, check_access
from tidemill_services.calls import REQUEST_ID_HEADER, Call, Calls
from tidemill_services.domain.errors import ApiKeyMissingError, DrainingError, NotServedError, TidemillError
from tidemill_services.faults import forget_frames, log_fault
from tidemill_services.gateway.http_errors import MethodNotAllowedError, error_response
from tidemill_services.identity import Caller, Identities
from tidemill_services.metrics import Metrics
from tidemill_services.usage_limits import UsageGuard
from tidemill_telemetry.tracing import Attributes

OPEN_PATHS = frozenset({"/healthz"})


class Door:
    """The public HTTP port's application."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        identities: Identities,
        guard: UsageGuard,
        metrics: Metrics,
        calls: Calls,
    ) -> None:
        self._router = Router(routes, redirect_slashes=False)
        self._identities = identities
        self._guard = guard
        self._metrics = metrics.http
        self._calls = calls
        self._draining = False

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_open = scope["path"] in OPEN_PATHS
        headers = ((name.decode("latin-1"), value) for name, value in scope["headers"])
        call = self._calls.begin(scope["method"], headers, is_told=not is_open)
        answer = _Answer(send, call)
        reason = ""
        self._metrics.begin()
        scope["app"] = self  # has the router raise what it does not find, instead of answering in its own shape
        try:
            if not is_open:
                scope["state"]["caller"] = await self._let_in(scope, call)
            await self._router(scope, receive, answer.send)
        except (asyncio.CancelledError, ClientDisconnect) as error:
            reason = "CLIENT_GONE"
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 -- the door is where every error becomes an answer
            refusal = _refusal(error)
            reason = refusal.reason
            forget_frames(error)
            if not answer.status:
                await error_response(refusal)(scope, receive, answer.send)
        finally:
            self._count(call, scope, answer.status, reason)

    def _count(self, call: Call, scope: Scope, status: int, reason: str) -> None:
        route = getattr(scope.get("route"), "path", "")
        self._metrics.end(route, status, reason, call.seconds)
        if route:  # not the path, which is the caller's
            call.record.method = f"{scope['method']} {route}"

        def describe() -> Attributes:
            attributes: dict[str, str | int] = {"http.request.method": scope["method"], "url.scheme": scope["scheme"]}
            if route:
                attributes["http.route"] = route
            if status:
                attributes["http.response.status_code"] = status
            return attributes

        call.end(str(status), reason, describe, is_fault=status >= 500)

    async def _let_in(self, scope: Scope, call: Call) -> Caller:
        """Find who asks, and whether they may; count the request. What is no page is for the router to say."""
        if self._draining:
            raise DrainingError(retry_after_seconds=1)
        caller = await self._identities.identify(_api_key(scope))
        call.record.account = caller.account_id
        route = next((each for each in self._router.routes if each.matches(scope)[0] is not Match.NONE), None)
        if route is not None:
            path = getattr(route, "path", "")
            check_access(caller, PAGES.get(path), path)
        await self._guard.count_request(caller)
        return caller


class _Answer:
    """Sends with the request's id, and knows what was sent."""

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self.status = 0  # none was sent yet

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (REQUEST_ID_HEADER.encode(), self._call.record.request_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), own]}
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
