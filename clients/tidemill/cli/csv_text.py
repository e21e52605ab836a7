"""Tables as CSV (RFC 4180) that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # also in full width, which some spreadsheets take the same


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """The table with its header; lines end with CR LF."""
    written = io.StringIO(newline="")
    writer = csv.writer(written)  # its default dialect is RFC 4180's
    writer.writerow(columns)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return written.getvalue()


def _safe(cell: str | int) -> str | int:
    """A text that a spreadsheet would take for a formula gets a quote before it; numbers stay numbers."""
    if isinstance(cell, str) and (cell[:1].isspace() or cell.startswith(_FORMULA_STARTS)):
        return f"'{cell}"
    return cell
