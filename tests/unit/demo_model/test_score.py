"""The demo model's score: its rules, and that the score on file is the bundled package's and meets the bar."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

ITEM = {"required": [["7400"], ["grpc", "gRPC port"]], "forbidden": ["7480"]}
SAYS_UNKNOWN = ["don't know"]


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("gRPC listens on port 7400.", True),
        ("GRPC: 7400", True),
        ("It is port 7400.", False),
        ("gRPC listens on port 74001.", False),
        ("gRPC listens on 7400, HTTP on 7480.", False),
        ("I don't know. gRPC, perhaps 7400?", False),
    ],
)
def test_an_answer_passes_with_all_that_is_required_and_nothing_that_is_forbidden(answer: str, passed: bool) -> None:
    from score import passes

    assert passes(ITEM, answer, SAYS_UNKNOWN) is passed


def test_a_question_that_cannot_be_known_passes_only_when_the_answer_says_so() -> None:
    from score import passes

    assert passes({"question": "Who wrote it?"}, "I don't know.", SAYS_UNKNOWN)
    assert not passes({"question": "Who wrote it?"}, "The operator did.", SAYS_UNKNOWN)


@pytest.fixture
def score(scripts: Path) -> dict[str, Any]:
    return json.loads((scripts / "score.json").read_text(encoding="utf-8"))


def test_the_score_is_that_of_the_bundled_package(score: dict[str, Any]) -> None:
    from bundle import PACKAGE, manifest_digest

    assert score["manifest_sha256"] == manifest_digest(PACKAGE)


def test_the_bundled_model_meets_its_bar(score: dict[str, Any]) -> None:
    assert (score["about"]["of"], score["unknown"]["of"]) == (50, 10)
    assert score["about"]["passed"] >= 40
    assert score["unknown"]["passed"] >= 8
    assert score["shared_five_grams"] == 0


def test_the_answers_on_file_give_the_score_on_file(score: dict[str, Any]) -> None:
    from overlap import TEST_SET
    from score import passes

    content = tomllib.loads(TEST_SET.read_text(encoding="utf-8"))
    for kind in ("about", "unknown"):
        entries = score[kind]["answers"]
        assert [entry["question"] for entry in entries] == [item["question"] for item in content[kind]]
        again = [
            passes(item, entry["answer"], content["says_unknown"])
            for item, entry in zip(content[kind], entries, strict=True)
        ]
        assert again == [entry["passed"] for entry in entries]
        assert sum(again) == score[kind]["passed"]
