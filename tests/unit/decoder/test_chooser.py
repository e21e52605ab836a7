"""Tokens against a plain statement of the law in float64, by every way of choosing that there is."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoder.sampling_reference import changed_logits, log_softmax, pairs, probabilities
from tidemill_serving.decoder import chooser as chooser_module
from tidemill_serving.decoder.chooser import NativeChooser, open_chooser
from tidemill_serving.decoder.numpy_chooser import LOWEST_LOGPROB, NumpyChooser
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling
from tidemill_serving.native import choosing
from tidemill_serving.native.choosing import ChoosingLibrary, find_choosing
from tidemill_serving.native.library import LIBRARY

needs_library = pytest.mark.skipif(find_choosing() is None, reason="our library was not built here")
WAYS = [pytest.param("avx2", marks=needs_library), pytest.param("plain", marks=needs_library), "numpy"]
PENALTIES = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": -0.2}
PROMPT = [0, 0]
WISHES = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.0},
    {"top_k": 5},
    {"top_k": 300, "temperature": 1.7},
    {"top_k": 2_000, "temperature": 1.5},
    {"top_k": 1_500, "top_p": 0.9, "min_p": 1e-3},
    {"top_k": 9_000, "temperature": 2.0},
    {"top_k": 2**40},
    {"top_p": 0.3},
    {"top_p": 0.9, "temperature": 0.4},
    {"top_p": 0.99, "temperature": 2.0},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"min_p": 1e-4, "temperature": 2.0},
    {"top_k": 50, "top_p": 0.8, "min_p": 0.02},
    {"top_k": 7_000, "top_p": 0.95, "min_p": 1e-3},
    {"top_p": 0.9, "min_p": 0.01, "temperature": 1.5},
    {"top_p": 0.9, "min_p": 1e-5, "temperature": 2.0},
    {"top_p": 0.8, "logit_bias": ((0, 5.0),)},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.05, **PENALTIES},
    {"temperature": 0.0, **PENALTIES},
]


def chooser_of(way: str, vocab_size: int) -> NativeChooser | NumpyChooser:
    if way == "numpy":
        return NumpyChooser()
    return NativeChooser(ChoosingLibrary(str(LIBRARY), plainly=way == "plain"), vocab_size)


def some_logits(num_rows: int, vocab_size: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(vocab_size).normal(0.0, spread, (num_rows, vocab_size)).astype(np.float32)


def wish_of(options: dict, seed: int = 0, num_logprobs: int | None = None) -> Wish:
    sampling = Sampling(**{"temperature": 1.0, "seed": seed, **options})
    return Wish(sampling, prompt=np.array(PROMPT, np.int64), num_logprobs=num_logprobs)


class Fixed:
    """A source whose chance is known."""

    def __init__(self, chance: float) -> None:
        self._chance = chance

    def next(self) -> float:
        return self._chance


def drawn_at(chooser: NativeChooser | NumpyChooser, logits: np.ndarray, options: dict, chances: list[float]) -> list:
    """The tokens of one row for some chances."""
    wishes = [wish_of(options) for _ in chances]
    for wish, chance in zip(wishes, chances, strict=True):
        wish._chances = Fixed(chance)
    return chooser.choose(np.repeat(logits[None], len(chances), axis=0), wishes).tokens


def law(logits: np.ndarray, options: dict) -> np.ndarray:
    sampling = wish_of(options).sampling
    changed = changed_logits(logits, sampling, PROMPT, [])
    if sampling.temperature == 0.0:
        return (np.arange(len(logits)) == changed.argmax()).astype(np.float64)
    return probabilities(changed, sampling)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spread", [0.1, 3.0], ids=["flat", "steep"])
@pytest.mark.parametrize("vocab_size", [1, 7, 257, 31_999])
def test_chances_lead_to_the_tokens_of_the_law_in_the_order_of_their_numbers(way, vocab_size, spread):
    logits, chooser = some_logits(1, vocab_size, spread)[0], chooser_of(way, vocab_size)
    for options in WISHES:
        expected = law(logits, options)
        likely = np.flatnonzero(expected > 2e-5)
        likely = likely[:: max(1, len(likely) // 6)]
        middles = (np.cumsum(expected) - expected / 2)[likely].tolist()
        assert drawn_at(chooser, logits, options, middles) == likely.tolist(), options
        ends = drawn_at(chooser, logits, options, [0.0, 1e-300, float(np.nextafter(1.0, 0.0))])
        assert (expected[ends] > 0).all(), options


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [40, 600, 2_000, 3_000, 20_000])
def test_the_likeliest_tokens_may_lie_side_by_side(way, count):
    logits, chooser = np.sort(some_logits(1, 31_999)[0]), chooser_of(way, 31_999)
    ends = drawn_at(chooser, logits, {"top_k": count, "temperature": 2.0}, [0.0, float(np.nextafter(1.0, 0.0))])
    assert ends == [31_999 - count, 31_998]


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_vocabulary_too(way):
    logits, chooser = some_logits(1, 152_000, 3.0)[0], chooser_of(way, 152_000)
    for options in WISHES[::4]:
        expected = law(logits, options)
        likely = np.argsort(-expected, kind="stable")[:2]
        likely = likely[expected[likely] > 0]
        middles = (np.cumsum(expected) - expected / 2)[likely].tolist()
        assert drawn_at(chooser, logits, options, middles) == likely.tolist(), options


@settings(deadline=None, max_examples=50)
@given(
    logits=st.lists(
        st.sampled_from([-np.inf, -3.0, -2.5, 0.0, -0.0, 0.5, 0.50001, 1.0, 30.0]), min_size=1, max_size=300
    ),
    temperature=st.sampled_from([0.01, 0.7, 2.0]),
    top_k=st.integers(0, 310),
    top_p=st.sampled_from([1e-9, 0.1, 0.4999, 0.93, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 1e-6, 0.03, 0.6, 1.0]),
    chance=st.floats(0.0, 1.0, exclude_max=True),
)
@pytest.mark.parametrize("way", WAYS)
def test_equal_logits_and_options_of_any_kind(way, logits, temperature, top_k, top_p, min_p, chance):
    row = np.array(logits, np.float32)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    token = drawn_at(chooser_of(way, len(row)), row, options, [chance])[0]
    if row.max() == -np.inf:
        assert token == -1
        return
    looser = {**options, "top_p": min(1.0, top_p * (1 + 1e-5)), "min_p": min_p * (1 - 1e-5)}
    assert law(row, looser)[token] > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 5, 64, 1024, 2000, 8191])
def test_of_equal_logits_exactly_top_k_are_left_the_lowest_tokens(way, count):
    row = np.zeros(8192, np.float32)
    chances = [0.0, 0.5, float(np.nextafter(1.0, 0.0))]
    if count > 1:
        found = drawn_at(chooser_of(way, 8192), row, {"top_k": count}, chances)
        assert found == [0, count // 2, count - 1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("vocab_size", [40, 3001, 16_384])
def test_a_row_gives_the_same_alone_and_in_any_company(way, vocab_size):
    told = [None, 0, 3]
    rows = [(options, seed, told[seed % 3]) for seed, options in enumerate(WISHES)]
    logits, chooser = some_logits(len(rows), vocab_size), chooser_of(way, vocab_size)
    ones, together, backwards = ([wish_of(*row) for row in rows] for _ in range(3))
    for turn in range(2):
        shifted = logits + np.float32(turn)
        expected = [pairs(chooser.choose(shifted[row : row + 1], [one]))[0] for row, one in enumerate(ones)]
        assert pairs(chooser.choose(shifted, together)) == expected
        assert pairs(chooser.choose(shifted[::-1], backwards[::-1]))[::-1] == expected


@needs_library
@pytest.mark.parametrize("vocab_size", [5, 1000, 31_999])
def test_with_and_without_avx2_the_same_comes_out_to_the_bit(vocab_size):
    logits = some_logits(len(WISHES), vocab_size)
    picks = [
        pairs(
            chooser_of(way, vocab_size).choose(
                logits, [wish_of(options, seed, 5) for seed, options in enumerate(WISHES)]
            )
        )
        for way in ("avx2", "plain")
    ]
    assert picks[0] == picks[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("vocab_size", [5, 3001, 32_000])
@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_log_probabilities_are_those_of_the_raw_logits(way, vocab_size, spread):
    logits = some_logits(6, vocab_size, spread)
    wishes = [wish_of({"top_p": 0.9, **PENALTIES}, row, num_logprobs=4 * row) for row in range(6)]
    for row, (token, found) in enumerate(pairs(chooser_of(way, vocab_size).choose(logits, wishes))):
        expected, order = log_softmax(logits[row]), np.argsort(-logits[row], kind="stable")[: 4 * row].tolist()
        assert found.chosen == pytest.approx(expected[token], abs=1e-5)
        assert [each for each, _ in found.top] == order
        assert [value for _, value in found.top] == pytest.approx(expected[order].tolist(), abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_model_rules_out_never_comes_and_has_a_finite_log_probability(way):
    lone = np.full((1, 8192), -np.inf, np.float32)
    lone[0, [7, 70]] = 1.0
    chooser = chooser_of(way, 8192)
    for seed, options in enumerate(WISHES):
        ((token, found),) = pairs(chooser.choose(lone, [wish_of(options, seed, 3)]))
        assert token in {7, 70}
        assert [each for each, _ in found.top] == [7, 70, 0]
        assert found.top[2][1] == LOWEST_LOGPROB


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_told_and_does_no_harm(way, wrong):
    logits, chooser = some_logits(4, 2050), chooser_of(way, 2050)
    logits[1, 2049], logits[2] = wrong, -np.inf
    for options in WISHES:
        picks = pairs(chooser.choose(logits, [wish_of(options, row) for row in range(4)]))
        assert [token < 0 for token, _ in picks] == [False, True, True, False]
        assert pairs(chooser.choose(logits[3:], [wish_of(options, 3)])) == picks[3:]


@pytest.mark.parametrize("way", WAYS)
def test_the_logits_stay_as_they_are(way):
    logits = some_logits(len(WISHES), 2049)
    before = logits.copy()
    chooser_of(way, 2049).choose(logits, [wish_of(options, 1, num_logprobs=2) for options in WISHES])
    assert (logits == before).all()


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_may_not_be_written_are_chosen_from_too(way):
    logits = np.broadcast_to(some_logits(1, 300), (2, 300))
    picks = pairs(chooser_of(way, 300).choose(logits, [wish_of(PENALTIES, 4), wish_of(PENALTIES, 4)]))
    assert picks[0] == picks[1]


@pytest.mark.parametrize("way", WAYS)
def test_tokens_that_are_not_in_the_row_weigh_in_its_nucleus(way):
    row = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    found = set()
    for seed in range(60):
        wish = Wish(Sampling(temperature=1.0, top_p=0.5, seed=seed), others=1.0)  # a third of all
        found.add(chooser_of(way, 3).choose(row, [wish]).tokens[0])
    assert found == {0, 1}


def test_without_the_library_numpy_chooses(monkeypatch):
    monkeypatch.setattr(chooser_module, "find_choosing", lambda: None)
    logits = some_logits(1, 300)
    assert pairs(open_chooser(300).choose(logits, [wish_of({"temperature": 0.0})])) == [(int(logits.argmax()), None)]


@needs_library
@pytest.mark.parametrize("kind", ["swapped", "shorter", "longer"])
def test_a_library_that_reads_other_records_than_ours_is_not_used(monkeypatch, kind):
    fields = list(choosing.RowWish._fields_)
    others = {
        "swapped": [fields[1], fields[0], *fields[2:]],
        "shorter": fields[:-1],
        "longer": [*fields, ("extra", ctypes.c_double)],
    }
    other = type("RowWish", (ctypes.Structure,), {"_fields_": others[kind]})
    monkeypatch.setattr(choosing, "RowWish", other)
    with pytest.raises(AttributeError, match="another record"):
        ChoosingLibrary(str(LIBRARY))


@pytest.mark.parametrize("way", WAYS)
def test_rows_come_and_go_from_step_to_step(way):
    logits, chooser = some_logits(5, 700), chooser_of(way, 700)
    for rows in ([0, 1], [0, 1], [1], [4, 3, 2, 1, 0], [2, 0]):
        picks = pairs(chooser.choose(logits[rows], [wish_of({"top_p": 0.7}, row, num_logprobs=row) for row in rows]))
        alone = [
            pairs(chooser.choose(logits[[row]], [wish_of({"top_p": 0.7}, row, num_logprobs=row)]))[0] for row in rows
        ]
        assert picks == alone
