"""What is kept of an error once it was told."""

import gc
import weakref

import pytest

from tidemill_services.faults import forget_frames


class Text(str):
    """A request's text; unlike a plain str it can be watched."""

    __slots__ = ("__weakref__",)


def fail_with(text: Text) -> None:
    raise ValueError(len(text))


def fail_because_of(text: Text) -> None:
    try:
        fail_with(text)
    except ValueError as error:
        raise KeyError from error


def fail_beside(text: Text) -> None:
    try:
        fail_with(text)
    except ValueError:
        raise KeyError  # noqa: B904 - what was being handled is the context


@pytest.fixture
def without_collection():
    """Only what nobody holds goes away."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("fail", [fail_with, fail_because_of, fail_beside])
@pytest.mark.parametrize("forgets", [True, False])
def test_an_error_that_was_told_holds_nothing_of_the_frames_that_it_passed(without_collection, fail, forgets):
    watched: list[weakref.ref[Text]] = []

    def answer() -> BaseException:
        text = Text("a long prompt")
        watched.append(weakref.ref(text))
        try:
            fail(text)
        except (ValueError, KeyError) as error:
            told = error
        if forgets:
            forget_frames(told)
        return told

    kept = answer()
    assert isinstance(kept, Exception)
    assert (watched[0]() is None) is forgets


def test_errors_that_are_each_others_cause_are_forgotten_too(without_collection):
    one, other = ValueError(), KeyError()
    try:
        raise one from other
    except ValueError:
        other.__cause__ = one
    forget_frames(one)
    assert one.__traceback__ is None
    one.__cause__ = other.__cause__ = None
