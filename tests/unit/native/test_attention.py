"""Our attention beside ONNX Runtime's, and beside itself: alone, in company, in pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.native.attention_graph import (
    FLOAT,
    NUM_POSITIONS,
    Cache,
    Kind,
    Tokens,
    angles,
    integer,
    model_of,
    number,
    own_model,
    session_of,
    stock_node,
    text,
)
from tests.unit.native.conftest import needs_kernels

pytestmark = needs_kernels

KINDS = {
    "grouped": Kind(),
    "a head each": Kind(num_heads=3, num_kv_heads=3, head_size=64, rotary_size=64),
    "sixteen of one": Kind(num_heads=16, num_kv_heads=1),
    "large heads": Kind(num_heads=4, num_kv_heads=2, head_size=256, rotary_size=256),
    "odd sizes, turned in part": Kind(num_heads=10, num_kv_heads=2, head_size=80, rotary_size=32),
    "turned by neighbours": Kind(is_interleaved=True),
    "not turned": Kind(rotary_size=0),
    "packed": Kind(is_packed=True),
    "its own scale": Kind(scale=0.4),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def sessions_of(kind):
    stock = stock_node(kind)
    return session_of(model_of(kind, stock)), session_of(own_model(kind, stock))


@each_kind
def test_it_computes_what_onnx_runtime_computes(kind):
    theirs, ours = sessions_of(kind)
    caches = Cache(kind, 3, 200), Cache(kind, 3, 200)
    first = Tokens.drawn(kind, 3, 130, 1)
    for row in range(3):  # prompts of other lengths, one by one, and their next token together
        prompt = first.of(slice(row, row + 1), slice(0, 130 - 40 * row))
        found = [
            cache.run(session, prompt, [130 - 40 * row], slice(row, row + 1))
            for cache, session in zip(caches, (theirs, ours), strict=True)
        ]
        np.testing.assert_allclose(found[1], found[0], **CLOSE)
    following = Tokens.drawn(kind, 3, 1, 2)
    found = [
        cache.run(session, following, [131, 91, 51]) for cache, session in zip(caches, (theirs, ours), strict=True)
    ]
    np.testing.assert_allclose(found[1], found[0], **CLOSE)
    np.testing.assert_allclose(caches[1].keys, caches[0].keys, **CLOSE)
    np.testing.assert_array_equal(caches[1].values, caches[0].values)


@each_kind
def test_a_piece_of_a_prompt_is_computed_as_onnx_runtime_does(kind):
    theirs, ours = sessions_of(kind)
    caches = Cache(kind, 1, 160), Cache(kind, 1, 160)
    tokens = Tokens.drawn(kind, 1, 150, 3)
    for start, end in ((0, 33), (33, 150)):
        found = [
            cache.run(session, tokens.of(slice(0, 1), slice(start, end)), [end])
            for cache, session in zip(caches, (theirs, ours), strict=True)
        ]
        np.testing.assert_allclose(found[1], found[0], **CLOSE)


def test_first_prompts_of_other_lengths_share_a_run():
    kind = KINDS["grouped"]
    theirs, ours = sessions_of(kind)
    caches = Cache(kind, 3, 64), Cache(kind, 3, 64)
    tokens, lengths = Tokens.drawn(kind, 3, 20, 4), [20, 5, 11]
    found = [cache.run(session, tokens, lengths) for cache, session in zip(caches, (theirs, ours), strict=True)]
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[1][row, :length], found[0][row, :length], **CLOSE)
        assert not found[1][row, length:].any()
        assert not caches[1].keys[row, :, length:].any()


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_token_is_the_same_to_the_bit_alone_in_company_and_in_any_pieces(data):
    kind = data.draw(st.sampled_from(list(KINDS.values())))
    session = session_of(own_model(kind, stock_node(kind)))
    length, num_sequences = data.draw(st.integers(2, 200)), data.draw(st.integers(1, 4))
    tokens = Tokens.drawn(kind, num_sequences, length, data.draw(st.integers(0, 99)))
    whole = [
        Cache(kind, 1, length).run(session, tokens.of(slice(row, row + 1), slice(None)), [length])[0]
        for row in range(num_sequences)
    ]
    cache = Cache(kind, num_sequences, length + 7, fill=np.nan)  # what is not there yet is not looked at
    starts = [data.draw(st.integers(1, length - 1)) for _ in range(num_sequences)]
    for row, start in enumerate(starts):
        for first, end in ((0, start // 2), (start // 2, start)):
            if first < end:
                piece = tokens.of(slice(row, row + 1), slice(first, end))
                found = cache.run(session, piece, [end], slice(row, row + 1))
                np.testing.assert_array_equal(found[0], whole[row][first:end])
    next_ones = [tokens.of(slice(row, row + 1), slice(start, start + 1)) for row, start in enumerate(starts)]
    batch = Tokens(*(np.concatenate([getattr(each, name) for each in next_ones]) for name in ("query", "key", "value")))
    found = cache.run(session, batch, [start + 1 for start in starts])
    for row, start in enumerate(starts):
        np.testing.assert_array_equal(found[row, 0], whole[row][start])


def test_what_is_no_number_stays_with_its_token():
    kind = KINDS["grouped"]
    session = session_of(own_model(kind, stock_node(kind)))
    tokens = Tokens.drawn(kind, 2, 1, 5)
    right = Cache(kind, 2, 8).run(session, tokens, [1, 1])
    tokens.query[0, 0, 3] = np.nan
    found = Cache(kind, 2, 8).run(session, tokens, [1, 1])
    assert np.isnan(found[0, 0, : kind.head_size]).all()
    np.testing.assert_array_equal(found[0, 0, kind.head_size :], right[0, 0, kind.head_size :])
    np.testing.assert_array_equal(found[1], right[1])


def test_a_past_in_a_buffer_of_its_own_is_copied():
    kind = KINDS["grouped"]
    session = session_of(own_model(kind, stock_node(kind)))
    tokens = Tokens.drawn(kind, 2, 9, 6)
    together = Cache(kind, 2, 9)
    for token in range(9):
        whole = together.run(session, tokens.of(slice(None), slice(token, token + 1)), [token + 1] * 2)
    grown = Cache(kind, 2, 0)
    for token in range(9):
        feed = tokens.of(slice(None), slice(token, token + 1)).feed(kind)
        feed |= {"past_key": grown.keys, "past_value": grown.values}
        feed |= {"lengths": np.full(2, token, np.int32), "total": np.array([token + 1], np.int32)}
        found, grown.keys, grown.values = session.run(None, feed | angles(kind))
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(grown.keys, together.keys)


@pytest.mark.parametrize("lengths", [[0, 1], [9, 1], [-5, 1], [2**31 - 1, 1]])
def test_a_length_that_the_cache_does_not_have_is_refused_and_nothing_is_written(lengths):
    kind = KINDS["grouped"]
    session = session_of(own_model(kind, stock_node(kind)))
    cache = Cache(kind, 2, 8)
    with pytest.raises(Exception, match="longer than its cache"):
        run_with_total(cache, session, Tokens.drawn(kind, 2, 1, 7), lengths, total=8)
    assert not cache.keys.any()


def test_tables_of_angles_that_end_before_the_context_are_refused():
    kind = KINDS["grouped"]
    session = session_of(own_model(kind, stock_node(kind)))
    with pytest.raises(Exception, match="angles are too short"):
        run_with_total(Cache(kind, 1, 1024), session, Tokens.drawn(kind, 1, 1, 8), [1], total=NUM_POSITIONS + 1)


def run_with_total(cache, session, tokens, lengths, total):
    feed = tokens.feed(cache.kind) | angles(cache.kind)
    feed |= {"past_key": cache.keys, "past_value": cache.values}
    feed |= {"lengths": (np.array(lengths, np.int64) - 1).astype(np.int32), "total": np.array([total], np.int32)}
    return session.run(None, feed)


@pytest.mark.parametrize(
    "more",
    [
        integer("local_window_size", 128),
        number("softcap", 30.0),
        integer("smooth_softmax", 1),
        integer("qk_output", 1),
        text("k_quant_type", "PER_TENSOR"),
        integer("something_new", 1),
    ],
)
def test_an_attention_that_it_does_not_know_stays_what_it_is(more):
    kind = KINDS["grouped"]
    assert own_model(kind, stock_node(kind, more)) is None


def test_what_has_no_effect_may_be_said():
    kind = KINDS["grouped"]
    more = integer("local_window_size", -1), number("softcap", 0.0), integer("smooth_softmax", 0)
    assert own_model(kind, stock_node(kind, *more, inputs=("", ""))) is not None


@pytest.mark.parametrize(
    ("kind", "element_type", "inputs"),
    [
        (KINDS["grouped"], 10, ()),
        (Kind(head_size=12), FLOAT, ()),
        (Kind(head_size=520), FLOAT, ()),
        (Kind(num_heads=34), FLOAT, ()),
        (Kind(num_heads=5), FLOAT, ()),
        (KINDS["grouped"], FLOAT, ("position_ids",)),
    ],
)
def test_a_cache_or_heads_that_it_cannot_take_stay(kind, element_type, inputs):
    assert own_model(kind, stock_node(kind, inputs=inputs), element_type) is None
