"""The machine's clock and its time zone."""

import re
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

_TOLERANCE = timedelta(seconds=5)
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)  # Tidemill is younger than this
_POSIX_ZONE = re.compile(r"(?:[A-Za-z]{3,}|<[\w+-]+>)[+-]?\d")


def check_clock(now: datetime, high_water_ms: int | None) -> Finding:
    """The time against what must have passed; `high_water_ms` is the latest that the database has seen."""
    shown = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < _EARLIEST:
        return wrong("clock", f"The clock says {shown}, which has long passed: set it, and keep it set by NTP.")
    behind = timedelta(0)
    if high_water_ms is not None:
        behind = timedelta(milliseconds=high_water_ms) - (now - datetime.fromtimestamp(0, UTC))
    if behind > _TOLERANCE:
        return warning(
            "clock",
            f"The clock says {shown}, {str(behind).partition('.')[0]} behind what the database has seen: the server "
            "goes on from there, so its times run ahead. Set the clock, and keep it set by NTP.",
        )
    return ok("clock", f"{shown}.")


def check_time_zone(environ: Mapping[str, str]) -> Finding:
    """TZ, which the C library takes for UTC without a word when it does not know the name."""
    name = environ.get("TZ", "").removeprefix(":")
    if not name or name.startswith("/") or _POSIX_ZONE.match(name):
        return ok("time zone", "Bills and the database are in UTC whatever the zone is.")
    known = zoneinfo.available_timezones()
    if known and name not in known:
        return warning("time zone", f"TZ is {name!r}, which no time zone is called, so the log is in UTC: correct TZ.")
    return ok("time zone", f"{name}; bills and the database are in UTC.")
