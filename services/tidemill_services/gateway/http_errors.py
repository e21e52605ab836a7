"""The one table that turns kinds of errors into HTTP statuses, and errors into bodies of OpenAI's shape."""

import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tidemill_services.domain import errors


class BodyTooLargeError(errors.FieldInvalidError):
    """The request's body is larger than this server takes."""


class BodyTooSlowError(errors.FieldInvalidError):
    """The request's body did not come in time."""


class HeadTooLargeError(errors.FieldInvalidError):
    """The request's line and headers are larger than this server takes."""


class ServerFullError(errors.ConnectionFullError):
    """This port has as many connections as it may: close those that you do not need, or try again."""


class MethodNotAllowedError(errors.NotServedError):
    """This page does not take that method."""

    def __init__(self, allowed: str = "") -> None:
        super().__init__(f"This page takes {allowed} only." if allowed else "")
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class HttpKind:
    """How a kind of error is said over HTTP."""

    status: int
    type: str  # OpenAI's word
    may_retry: bool = False  # whether the same request may work by itself, later


# The first that fits counts. A client's mistake is never a 5xx, and what passes by itself is 429 or 503.
KINDS: dict[type[errors.TidemillError], HttpKind] = {
    BodyTooLargeError: HttpKind(413, "invalid_request_error"),
    BodyTooSlowError: HttpKind(408, "invalid_request_error"),
    HeadTooLargeError: HttpKind(431, "invalid_request_error"),
    ServerFullError: HttpKind(503, "service_unavailable_error", may_retry=True),
    MethodNotAllowedError: HttpKind(405, "invalid_request_error"),
    errors.UnauthenticatedError: HttpKind(401, "authentication_error"),
    errors.PermissionDeniedError: HttpKind(403, "permission_error"),
    errors.InvalidArgumentError: HttpKind(400, "invalid_request_error"),
    errors.NotFoundError: HttpKind(404, "invalid_request_error"),
    errors.InsufficientCreditsError: HttpKind(402, "insufficient_quota"),
    errors.FailedPreconditionError: HttpKind(409, "invalid_request_error"),
    errors.AlreadyExistsError: HttpKind(409, "invalid_request_error"),
    errors.UnimplementedError: HttpKind(404, "invalid_request_error"),
    errors.ResourceExhaustedError: HttpKind(429, "rate_limit_error", may_retry=True),
    errors.UnavailableError: HttpKind(503, "service_unavailable_error", may_retry=True),
    errors.DeadlineExceededError: HttpKind(503, "service_unavailable_error"),
    errors.InternalError: HttpKind(500, "server_error"),
}


# What else helps at this door.
_HINTS: dict[type[errors.TidemillError], str] = {
    errors.NoSessionError: "Or let this door open one whenever it is needed: `tidemill key update KEY --auto-session`.",
    errors.ModelColdError: "With the header `x-tidemill-wait: SECONDS` the request waits for it.",
}


def kind_of(error: errors.TidemillError) -> HttpKind:
    """How an error's kind is said."""
    return next(kind for made, kind in KINDS.items() if isinstance(error, made))


def error_body(error: errors.TidemillError) -> dict[str, Any]:
    """The body of an error, or the data of a stream's error event; `code` is our reason."""
    return {
        "error": {
            "message": " ".join(filter(None, (str(error), _HINTS.get(type(error))))),
            "type": kind_of(error).type,
            "param": _param(error) or None,
            "code": error.reason,
        }
    }


def error_response(error: errors.TidemillError) -> Response:
    """The whole answer to a request that is refused."""
    kind = kind_of(error)
    # The openai package would try a 409, and what it waited for in vain, again.
    headers = {"x-should-retry": "true" if kind.may_retry else "false"}
    if kind.may_retry and error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if kind.status == 408:
        headers["connection"] = "close"  # or the rest of the body would be waited for
    if isinstance(error, MethodNotAllowedError):
        headers["allow"] = error.allowed
    if kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    # ASCII: a field's name is the caller's, and may hold what UTF-8 does not.
    return Response(json.dumps(error_body(error)), kind.status, headers, media_type="application/json")


def _param(error: errors.TidemillError) -> str:
    """The domain names options by their path in the gRPC contract; here they are at the top."""
    if isinstance(error, errors.ModelNotFoundError):
        return "model"
    return error.field.removeprefix("options.").removeprefix("sampling.")
