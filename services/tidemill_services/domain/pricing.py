"""What time costs, in exact integers. 1 credit = 1,000,000 microcredits."""


def billed_seconds(billed_ms: int) -> int:
    """Round billed milliseconds up to whole seconds, once for all of a session's intervals."""
    return -(-billed_ms // 1000)


def session_cost(billed_ms: int, price_microcredits_per_second: int) -> int:
    """Return what `billed_ms` cost, in microcredits."""
    return billed_seconds(billed_ms) * price_microcredits_per_second
