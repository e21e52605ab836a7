"""Who waits for which topic, in this process. All of it runs in the event loop's thread."""

import asyncio
from collections.abc import Iterable
from typing import Self

MAX_TOPICS = 10_000  # whose last change is known one by one


class Watchers:
    """Wakes the watches of a topic, and knows which topics changed since when.

    A moment is a number that grows with each change that is heard of.
    """

    def __init__(self) -> None:
        self.closed = False
        self.hears_all = True  # no commit goes unheard; else each watch looks again after its `poll_seconds`
        self.moment = 0
        self._wakes: dict[str, set[asyncio.Event]] = {}
        self._changed: dict[str, int] = {}  # the moment of each topic's last change
        self._all_changed = 0  # the moment before which every topic counts as changed

    def watch(self, topic: str, poll_seconds: float) -> "Watch":
        """Wait for a topic from now on."""
        return Watch(self, topic, poll_seconds)

    def wake(self, topics: Iterable[str]) -> None:
        """Wake whoever watches one of these."""
        self.moment += 1
        for topic in topics:
            self._changed[topic] = self.moment
            for wake in self._wakes.get(topic, ()):
                wake.set()
        if len(self._changed) > MAX_TOPICS:
            self._change_all()

    def wake_all(self) -> None:
        """Wake everybody: wakes may have been missed."""
        self.wake(self._wakes)
        self._change_all()

    def hear_all(self, *, hears: bool) -> None:
        """Note whether commits of other processes are heard of from now on; some may have been missed until now."""
        self.hears_all = hears
        self.wake_all()

    def changed_since(self, topic: str, moment: int) -> bool:
        """Whether the topic was woken after that moment; sometimes also when it was not."""
        return moment < max(self._all_changed, self._changed.get(topic, 0))

    def _change_all(self) -> None:
        self._changed.clear()
        self._all_changed = self.moment

    def close(self) -> None:
        """End every watch."""
        self.closed = True
        self.wake_all()

    def add(self, topic: str, wake: asyncio.Event) -> None:
        """Set `wake` whenever the topic is woken."""
        self._wakes.setdefault(topic, set()).add(wake)

    def remove(self, topic: str, wake: asyncio.Event) -> None:
        """Forget it. Repeats are fine."""
        wakes = self._wakes.get(topic, set())
        wakes.discard(wake)
        if not wakes:
            self._wakes.pop(topic, None)


class Watch:
    """Yields at once, then after each wake, and after `poll_seconds` in any case; ends when all is closed.

    While every wake comes, it rests for as long as its `rest_seconds` say. Wakes that come while the caller is busy are
    one wake. A cancelled `anext` loses nothing: the watch goes on. It is forgotten when it is closed, or dropped.
    """

    def __init__(self, watchers: Watchers, topic: str, poll_seconds: float) -> None:
        self._watchers = watchers
        self._topic = topic
        self._poll_seconds = poll_seconds
        self.rest_seconds = 0.0
        self._wake = asyncio.Event()
        self._wake.set()
        watchers.add(topic, self._wake)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        if not self._wake.is_set():
            await self._wait()
        self._wake.clear()
        if self._watchers.closed:
            raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop waiting."""
        self._watchers.remove(self._topic, self._wake)

    def __del__(self) -> None:
        self._watchers.remove(self._topic, self._wake)

    async def _wait(self) -> None:
        rest_seconds = self.rest_seconds if self._watchers.hears_all else 0.0
        try:
            async with asyncio.timeout(max(self._poll_seconds, rest_seconds)):
                await self._wake.wait()
        except TimeoutError:
            return  # the slow poll: look again even if nobody said so
