"""docs/metrics.md as data: its files for Prometheus, and every expression in it."""

import re
from pathlib import Path

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "metrics.md").read_text()

BLOCKS: dict[str, str] = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", DOCUMENT, re.DOTALL))
"""The files, by name."""

_QUESTIONS = DOCUMENT.partition("## Questions\n")[2].partition("\n## ")[0]
_ALERTS = re.findall(r"^ +expr: (?:\|\n((?:^ {10,}\S.*\n)+)|(.*)\n)", BLOCKS["tidemill-alerts.yml"], re.MULTILINE)

EXPRESSIONS: list[str] = [
    *re.findall(r"^\| .* \| `(.*)` \|$", _QUESTIONS, re.MULTILINE),
    *(several or one for several, one in _ALERTS),
]
"""What it would ask Prometheus."""
