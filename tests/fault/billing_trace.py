"""What sessions of one account cost, kept by a test by itself: no code of the platform is used in it."""

from dataclasses import dataclass, field

DAY_MS = 86_400_000
Span = tuple[int, int]


@dataclass(slots=True)
class SessionTrace:
    """When one session was billed."""

    price: int
    max_spend: int | None
    money: int  # of the account when it began; what is granted later is added
    spans: list[Span] = field(default_factory=list)  # billed time that is over, oldest first
    since_ms: int | None = None  # the clock runs since then

    def ready(self, now_ms: int) -> None:
        """The clock runs, if it did not."""
        if self.since_ms is None:
            self.since_ms = now_ms

    def lost(self, lost_ms: int) -> None:
        """The clock stands since then, or since there was nothing left to pay with."""
        if self.since_ms is not None:
            self._close(lost_ms)

    def stopped(self, now_ms: int) -> None:
        """The session ended, now or when there was nothing left to pay with."""
        if self.since_ms is not None:
            self._close(now_ms)

    def used_up_ms(self) -> int | None:
        """When there is nothing left to pay with; None while the clock stands, and if it costs nothing."""
        if self.since_ms is None or not self.price:
            return None
        return self.since_ms + max(0, self._paid_ms() - self.billed_ms())

    def ends_by_its_own_limit(self) -> bool:
        """Whether its limit, not the money, is what comes first."""
        return self.max_spend is not None and self.max_spend // self.price <= self.money // self.price

    def billed_ms(self) -> int:
        """Of the time that is over."""
        return sum(until_ms - from_ms for from_ms, until_ms in self.spans)

    def billed_seconds(self) -> int:
        """The same in seconds that were begun."""
        return (self.billed_ms() + 999) // 1000

    def _paid_ms(self) -> int:
        most = self.money if self.max_spend is None else min(self.money, self.max_spend)
        return most // self.price * 1000

    def _close(self, until_ms: int) -> None:
        used_up_ms = self.used_up_ms()
        end_ms = until_ms if used_up_ms is None else min(until_ms, used_up_ms)
        if self.since_ms is not None and end_ms > self.since_ms:
            self.spans.append((self.since_ms, end_ms))
        self.since_ms = None


def joined(spans: list[Span]) -> list[Span]:
    """Spans without seams: what ends where the next begins is one."""
    found: list[Span] = []
    for from_ms, until_ms in spans:
        if found and found[-1][1] == from_ms:
            found[-1] = (found[-1][0], until_ms)
        elif until_ms > from_ms:
            found.append((from_ms, until_ms))
    return found


def crosses_midnight(span: Span) -> bool:
    """Whether it lies on two days, UTC."""
    return span[0] // DAY_MS != max(span[0], span[1] - 1) // DAY_MS
