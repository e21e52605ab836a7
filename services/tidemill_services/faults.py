"""What to do with an error that nobody foresaw: it goes to the log under a number, and the caller gets the number."""

import logging
import secrets

from tidemill_services.domain.errors import FaultError

logger = logging.getLogger(__name__)


def log_fault(error: BaseException | str, where: str) -> FaultError:
    """Log an unforeseen error, with its traceback if it has one; return what the caller is told."""
    number = secrets.token_hex(8)
    cause = error if isinstance(error, BaseException) else None
    logger.error("fault %s in %s: %s", number, where, error, exc_info=cause)
    return FaultError(f"A fault of ours; tell the operator its number, which stands in the log: {number}.")


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames hold that an error has passed, such as a request's text.

    Tasks, futures and grpc.aio keep the error that ended them, and are in its frames themselves: a circle that would
    hold all of it until garbage is looked for. Call it once the error has been told.
    """
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [each for each in (one.__cause__, one.__context__) if each is not None]
