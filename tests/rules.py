"""Compares docs/rules.md with the tests: every sentence has a test that holds it, marked `@pytest.mark.rule("A1")`.

`python -m tests.rules` is part of `make check`; with `--write` it writes the tests' names into the table.
"""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "docs" / "rules.md"
_ROW = re.compile(r"^\| (?P<id>[A-Z]+\d+) \| (?P<sentence>.*) \|[^|]*\|$", re.MULTILINE)


def marked_tests(folder: Path) -> dict[str, list[str]]:
    """The names of the tests in a folder by the rule that they hold."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for rule in _rules(node):
                    found[rule].append(f"{path.relative_to(folder)}::{node.name}")
    return found


def with_tests(text: str, tests: dict[str, list[str]]) -> str:
    """The text of the rules with each sentence's tests."""

    def row(match: re.Match[str]) -> str:
        names = "<br>".join(f"`{name}`" for name in tests.get(match["id"], []))
        return f"| {match['id']} | {match['sentence']} | {names} |"

    return _ROW.sub(row, text)


def problems(text: str, tests: dict[str, list[str]]) -> list[str]:
    """What does not fit, as sentences."""
    ids = [match["id"] for match in _ROW.finditer(text)]
    return [
        *(f"{rule} has no test: mark one with @pytest.mark.rule({rule!r})." for rule in ids if rule not in tests),
        *(f"{rule} stands twice." for rule in sorted({rule for rule in ids if ids.count(rule) > 1})),
        *(f"{names[0]} holds {rule}, which is no rule." for rule, names in tests.items() if rule not in ids),
    ]


def _rules(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
    return [str(ast.literal_eval(call.args[0])) for call in calls if ast.unparse(call.func) == "pytest.mark.rule"]


def main() -> int:
    """Check, or write; return the exit status."""
    tests = marked_tests(ROOT / "tests")
    text = RULES.read_text()
    if sys.argv[1:] == ["--write"]:
        RULES.write_text(with_tests(text, tests))
    found = problems(text, tests)
    if not found and RULES.read_text() != with_tests(text, tests):
        found = ["The tests in the table are not those that are marked: run `python -m tests.rules --write`."]
    for problem in found:
        print(f"docs/rules.md: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
