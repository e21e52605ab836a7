"""Turns of engines that live, and of one that does not."""

from pathlib import Path

import pytest

from tests.bench.common.figures import Sample
from tests.bench.engine.entrants import Entrant
from tests.bench.engine.peers import ENGINES
from tests.bench.engine.plan import QUICK
from tests.bench.engine.turns import Measured, Turns
from tests.bench.models.shapes import LARGE

ENGINE_OF = {engine.name: engine for engine in ENGINES}


def turns_of(*names: str) -> tuple[Turns, Measured]:
    found = Measured()
    entrants = {name: Entrant(ENGINE_OF[name], "fp32", Path("model")) for name in names}
    return Turns(QUICK, LARGE, "fp32", entrants, found), found


def test_a_peer_that_fails_is_told_as_absent_and_asked_no_more() -> None:
    turns, found = turns_of("tidemill", "llama.cpp")
    asked = []

    def turn(name: str) -> Sample:
        asked.append(name)
        assert name == "tidemill", "it ended"
        return {"decode": 1.0}

    names = {"tidemill": "tidemill", "llama.cpp": "llama.cpp"}
    assert list(turns.take(names, turn, 2)) == ["tidemill"]
    assert list(turns.take(names, turn, 1)) == ["tidemill"]
    assert asked == ["tidemill", "llama.cpp", "tidemill", "tidemill"]
    assert [line.partition(":")[0] for line in found.absent] == ["llama.cpp of 125m"]


def test_ours_must_not_fail() -> None:
    turns, _ = turns_of("tidemill")

    def turn(name: str) -> Sample:
        raise AssertionError(name)

    with pytest.raises(AssertionError):
        turns.take({"tidemill": "tidemill"}, turn)


def test_ours_is_ahead_where_a_rate_is_higher_or_a_time_is_shorter() -> None:
    turns, found = turns_of("tidemill", "llama.cpp")
    samples = {"tidemill": [{"rate": 30.0, "time": 2.0}], "llama.cpp": [{"rate": 10.0, "time": 8.0}]}
    turns.report(samples, {"rate": ("decode", "tokens/s"), "time": ("prefix: first", "ms")})
    ratios = {row.metric: row.value for row in found.rows if row.peer}
    assert ratios == {"decode by llama.cpp": 3.0, "prefix: first by llama.cpp": 4.0}


def test_whoever_runs_a_file_of_ours_is_compared_on_that_file_only() -> None:
    ours = Entrant(ENGINE_OF["tidemill"], "int8-b32", Path("a"))
    genai = ENGINE_OF["onnxruntime-genai"]
    assert ours.meets(Entrant(genai, "int8-b32", Path("a")))
    assert not ours.meets(Entrant(genai, "int8-b128", Path("b")))
    assert ours.meets(Entrant(ENGINE_OF["llama.cpp"], "q8_0", Path("c")))
