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
