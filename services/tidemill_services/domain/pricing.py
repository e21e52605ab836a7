"""What time costs, in exact integers. 1 credit = 1,000,000 microcredits."""

MICROCREDITS_PER_CREDIT = 1_000_000


def billed_seconds(billed_ms: int) -> int:
    """Round billed milliseconds up to whole seconds, once for all of a session's intervals."""
    return -(-billed_ms // 1000)


def session_cost(billed_ms: int, price_microcredits_per_second: int) -> int:
    """Return what `billed_ms` cost, in microcredits."""
    return billed_seconds(billed_ms) * price_microcredits_per_second


def credits_text(microcredits: int) -> str:
    """Return an amount in credits, exactly, as people read it: `1,234.5`."""
    whole, part = divmod(abs(microcredits), MICROCREDITS_PER_CREDIT)
    sign = "-" if microcredits < 0 else ""
    return f"{sign}{whole:,}.{part:06d}".rstrip("0").rstrip(".")
