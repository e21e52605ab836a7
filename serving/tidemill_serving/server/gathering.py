"""How long the steps of an engine wait for each other: a message costs as much as ten tokens in it, all the way to its
reader, so what is sent together saves most of what sending takes.

How long is asked for by those who pay for it: see `Submit.gather_microseconds`.
"""

SHORTEST_SECONDS = 0.004  # nobody reads faster
LONGEST_SECONDS = 0.030  # nobody sees it on a screen


class Gathering:
    """When steps are passed on: at the one that comes nearest to a set time after those before.

    A timer of that time would end between two steps, with a message for fewer of them and a step that waited for
    nothing. It is needed for an engine that stops, and only then.
    """

    def __init__(self) -> None:
        self.microseconds = 0  # that all running sequences ask for; the loop's
        self._passed_on_at = 0.0  # the loop's
        self._came_at = 0.0  # the last step; the engine's thread's own

    @property
    def seconds(self) -> float:
        """Between one message and the next."""
        return min(max(self.microseconds / 1e6, SHORTEST_SECONDS), LONGEST_SECONDS)

    @property
    def patience_seconds(self) -> float:
        """After a message, until what has come is sent without waiting for a step.

        Steps further apart than two thirds of `seconds` do not gather, so the one to be sent with comes before.
        """
        return self.seconds * 4 / 3

    def step_came(self, now: float) -> bool:
        """Whether what has gathered is to be sent now: the next step, if it takes as long, would be farther off."""
        gap, self._came_at = now - self._came_at, now
        return now - self._passed_on_at + gap / 2 >= self.seconds

    def passed_on(self, now: float) -> None:
        """What had gathered was sent."""
        self._passed_on_at = now
