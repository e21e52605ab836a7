"""Whether a replica shows life, as its client judges it. Pure: times are arguments."""

from dataclasses import dataclass

NO_LIFE_SECONDS = 5.0  # a replica that shows no life for so long, at least, is not responsive
LOOK_SECONDS = 0.25  # between two looks of a client


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client bears a replica that shows no life, in seconds."""

    open: float = 10.0  # until its first status; it opens its port first of all, so this is ample
    stale: float = NO_LIFE_SECONDS  # it says something every second; then it is not responsive, and its streams end
    silence: float = 15.0  # then it is lost
    unresponsive: float = 60.0  # the same of one that speaks, and whose engine shows no life


class SignsOfLife:
    """What was heard of a replica, and for how long nothing was.

    A span of silence is as long as the clock says, and no longer than our looks within it would take. For while this
    process stands still or is starved, what the replica says lies unread: a look that comes late counts as one.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self._heard_at = now
        self._num_silent_looks = 0
        self._lifeless_at: float | None = None  # when the replica first said that its engine shows no life
        self._lifeless_before = 0.0  # for how long it had shown none by then
        self._num_lifeless_looks = 0

    def heard(self, now: float) -> None:
        """The replica said something."""
        self._heard_at = now
        self._num_silent_looks = 0

    def engine_lives(self) -> None:
        """The replica said that its engine shows life."""
        self._lifeless_at = None
        self._num_lifeless_looks = 0

    def engine_is_silent(self, silent_seconds: float, now: float) -> None:
        """The replica said that its engine showed life last so long ago."""
        if self._lifeless_at is None:
            self._lifeless_at, self._lifeless_before = now, silent_seconds

    def look(self) -> None:
        """To be called every `LOOK_SECONDS`."""
        self._num_silent_looks += 1
        if self._lifeless_at is not None:
            self._num_lifeless_looks += 1

    @property
    def last_life(self) -> float:
        """When it showed life last."""
        return self._heard_at if self._lifeless_at is None else self._lifeless_at - self._lifeless_before

    def is_silent(self, now: float) -> bool:
        """Whether it has said nothing for too long to be given work."""
        return self._silent_seconds(now) > self._patience.stale

    def why_lost(self, now: float) -> str:
        """Why the replica is to be given up; empty when it is not."""
        if self._silent_seconds(now) > self._patience.silence:
            return f"it said nothing for {self._patience.silence:g} s"
        if self._lifeless_at is None:
            return ""
        watched = min(now - self._lifeless_at, self._num_lifeless_looks * LOOK_SECONDS)
        if self._lifeless_before + watched > self._patience.unresponsive:
            return f"its engine showed no life for {self._patience.unresponsive:g} s"
        return ""

    def _silent_seconds(self, now: float) -> float:
        return min(now - self._heard_at, self._num_silent_looks * LOOK_SECONDS)
