"""One run of a plan, whoever carries its steps out."""

from typing import Any, Generic, TypeVar, cast

from tidemill.steps import OpenCall, Plan, Step

Result = TypeVar("Result")


class PlanRun(Generic[Result]):
    """One run of a plan: what it wants next, until its result is there."""

    def __init__(self, plan: Plan[Result]) -> None:
        self._plan = plan
        self._reply: Any = None
        self._error: Exception | None = None
        self._result: Result | None = None
        self._held: OpenCall | None = None

    def next_step(self) -> Step | None:
        """What the plan wants, after the reply or error to what it wanted before; None when it has returned."""
        reply, error, self._reply, self._error = self._reply, self._error, None, None
        try:
            return self._plan.send(reply) if error is None else self._plan.throw(error)
        except StopIteration as end:
            self._result = end.value
            return None

    def answer(self, reply: Any) -> None:
        """Keep the step's reply for the plan."""
        self._reply = reply

    def fail(self, error: Exception) -> None:
        """Keep what the step failed with for the plan."""
        self._error = error

    def hold(self, call: OpenCall) -> None:
        """Keep a call that is about to be opened: what ends the run may come before the plan has it."""
        self._held = call

    @property
    def result(self) -> Result:
        """What the plan returned."""
        return cast("Result", self._result)

    def abandon(self) -> None:
        """End the plan where it stands; its open call is left for good."""
        self._plan.close()
        if self._held is not None:
            self._held.leave()
