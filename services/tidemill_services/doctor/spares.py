"""The spare processes that make starts of replicas short: how many a running server has, and why one is missing."""

import json
from dataclasses import dataclass

from tidemill_services.doctor.finding import Finding, ok, warning
from tidemill_services.doctor.ports import Port, read_page

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SparesNow:
    """What a running server says of them."""

    num_wanted: int
    num_ready: int
    failure: str = ""  # when and why the last one failed; empty when none did


def ask_spares(admin: Port) -> SparesNow | None:
    """Read the page of the server that has this admin port; None where none answers with such a page."""
    if admin.number == 0:
        return None
    try:
        told = json.loads(read_page(admin, "/spares", num_bytes=_PAGE_BYTES))
        failure = told["last_failure"]
        when_and_why = f"{failure['time']}: {failure['reason']}" if failure else ""
        return SparesNow(told["wanted"], told["ready"], when_and_why)
    except (ValueError, KeyError, TypeError):
        return None


def check_spares(num_wanted: int, now: SparesNow | None) -> Finding:
    """Whether starts of replicas find one. `num_wanted` as the settings say, `now` as a running server does."""
    if now is None:
        kept = f"A server keeps {num_wanted}, each for one start." if num_wanted else "A server keeps none."
        return ok("spares", kept)
    if not now.num_wanted:
        return ok("spares", "The server keeps none: the first second of each start goes into imports.")
    ready = f"{now.num_ready} of {now.num_wanted} ready."
    if not now.failure:
        return ok("spares", ready)
    failed = f"{ready} One failed at {now.failure}"
    if now.num_ready >= now.num_wanted:
        return ok("spares", failed)
    return warning("spares", f"{failed} Replicas start without one, a second later; the server's log says more.")
