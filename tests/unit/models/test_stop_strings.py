import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill_models.stop_strings import StopMatcher


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: at the first character that completes a stop string, cut before the longest that ends there."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def stream(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        text, is_hit = matcher.push(piece)
        shown += text
        if is_hit:
            return shown, True
    return shown + matcher.finish(), False


letters = st.text(alphabet="ab", max_size=30)


@settings(deadline=None)
@given(letters, st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4), st.data())
def test_any_cutting_of_the_text_gives_what_the_definition_gives(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert stream(pieces, stops) == naive(text, stops)


@settings(deadline=None)
@given(letters, st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=4))
def test_only_what_may_begin_a_stop_string_is_held_back(text, stops):
    matcher = StopMatcher(stops)
    shown, is_hit = matcher.push(text)
    if not is_hit:
        suffixes = (text[start:] for start in range(len(text) + 1))
        held = next(suffix for suffix in suffixes if any(stop.startswith(suffix) for stop in stops))
        assert shown + held == text
        assert matcher.finish() == held


def test_a_stop_string_over_three_pieces_is_never_shown():
    matcher = StopMatcher(["\n\nUser:"])
    assert matcher.push("Hello.\n") == ("Hello.", False)
    assert matcher.push("\nUs") == ("", False)
    assert matcher.push("er: no") == ("", True)
    assert matcher.push("more") == ("", True)
    assert matcher.finish() == ""


def test_what_only_began_like_a_stop_string_comes_out():
    matcher = StopMatcher(["END"])
    assert matcher.push("EN") == ("", False)
    assert matcher.push("J") == ("ENJ", False)
    assert matcher.push("E") == ("", False)
    assert matcher.finish() == "E"


def test_without_stop_strings_everything_passes():
    assert StopMatcher([]).push("text") == ("text", False)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        StopMatcher(["a", ""])
