"""The check that every rule has a test."""

from pathlib import Path

from tests.rules import RULES, marked_tests, problems, with_tests

TABLE = "| rule | sentence | held by |\n|---|---|---|\n| A1 | One. | |\n| A2 | Two \\| three. | `x` |\n"


def test_a_rule_without_a_test_a_test_without_a_rule_and_a_rule_that_stands_twice_are_named() -> None:
    assert problems(TABLE, {"A1": ["t"], "A2": ["t"]}) == []
    (missing,) = problems(TABLE, {"A1": ["t"]})
    assert missing.startswith("A2 has no test")
    (unknown,) = problems(TABLE, {"A1": ["t"], "A2": ["t"], "A9": ["f.py::test_nine"]})
    assert unknown == "f.py::test_nine holds A9, which is no rule."
    assert problems(TABLE + "| A1 | Again. | |\n", {"A1": ["t"], "A2": ["t"]}) == ["A1 stands twice."]


def test_the_tests_names_are_written_into_the_table() -> None:
    written = with_tests(TABLE, {"A1": ["f.py::test_one", "g.py::test_two"]})
    assert "| A1 | One. | `f.py::test_one`<br>`g.py::test_two` |" in written
    assert "| A2 | Two \\| three. |  |" in written


def test_marks_are_found_on_functions_and_coroutines(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "@pytest.mark.rule('A1')\n@pytest.mark.parametrize('x', [1])\ndef test_one(): ...\n"
        "@pytest.mark.rule('A1')\nasync def test_two(): ...\ndef test_three(): ...\n"
    )
    assert marked_tests(tmp_path) == {"A1": ["test_it.py::test_one", "test_it.py::test_two"]}


def test_the_rules_of_this_project_are_a_table() -> None:
    assert "| A1 |" in RULES.read_text()
