"""W3C trace context, strictly: what is not so is ignored."""

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tidemill_telemetry.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def hex_of(length: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=length, max_size=length)


@given(trace_id=hex_of(32), span_id=hex_of(16), flags=st.integers(0, 255))
def test_every_valid_traceparent_is_understood(trace_id: str, span_id: str, flags: int) -> None:
    assume(int(trace_id, 16) and int(span_id, 16))
    found = TraceContext.parse([f"00-{trace_id}-{span_id}-{flags:02x}"])
    assert found == TraceContext(trace_id, span_id, flags & 3)


@given(header=st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-fA-F]{31,33}-[0-9a-f]{15,17}-[0-9a-z]{1,3}"))
@example(VALID + "\n")
@example(VALID + "-00")
@example(VALID.upper())
@example("٠" * 2 + VALID[2:])
@example(f"ff-{TRACE}-{SPAN}-01")
@example(f"00-{'0' * 32}-{SPAN}-01")
@example(f"00-{TRACE}-{'0' * 16}-01")
@example(f"cc-{TRACE}-{SPAN}-01what")
def test_whatever_comes_is_ignored_or_becomes_a_header_that_says_the_same(header: str) -> None:
    found = TraceContext.parse([header])
    if found is None:
        return
    parts = header.split("-")
    assert parts[1:3] == [found.trace_id, found.span_id]
    assert TraceContext.parse([found.traceparent]) == found
    assert len(found.traceparent) == 55
    assert set(found.traceparent) <= set("0123456789abcdef-")


@pytest.mark.parametrize(
    "header",
    [
        VALID + "\n",
        VALID + "-00",
        VALID.upper(),
        " " + VALID,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{SPAN}-01what",
        "",
    ],
)
def test_what_is_nearly_a_traceparent_is_none(header: str) -> None:
    assert TraceContext.parse([header]) is None


def test_a_later_version_may_say_more_at_its_end() -> None:
    assert TraceContext.parse([f"cc-{TRACE}-{SPAN}-01-what"]) == TraceContext(TRACE, SPAN, 1)


def test_two_traceparents_are_none() -> None:
    assert TraceContext.parse([VALID, VALID]) is None


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        (["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["fw529a3039@dt=FfAAA,,"], "fw529a3039@dt=FfAAA"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a=1\n"], ""),
        (["a=ü"], ""),
        (["=1"], ""),
        ([",".join(f"k{number}=v" for number in range(33))], ""),
        ([f"a={'v' * 257}"], ""),
    ],
)
def test_a_tracestate_is_passed_on_or_dropped_alone(headers: list[str], state: str) -> None:
    assert TraceContext.parse([VALID], headers) == TraceContext(TRACE, SPAN, 1, state)


@given(headers=st.lists(st.text(string.printable, max_size=60), max_size=4))
def test_no_tracestate_can_carry_more_than_printable_ascii(headers: list[str]) -> None:
    found = TraceContext.parse([VALID], headers)
    assert found is not None
    assert found.state.isascii()
    assert found.state.isprintable()


def test_a_child_is_another_span_of_the_same_trace() -> None:
    parent = TraceContext.new()
    child = parent.child()
    assert child.trace_id == parent.trace_id
    assert child.span_id != parent.span_id
    assert TraceContext.parse([child.traceparent]) == child
