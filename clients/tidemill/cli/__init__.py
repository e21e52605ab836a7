"""The command `tidemill`.

Answers go to standard output and everything about them (progress, bills, errors) to standard error. With `--json` the
answer is one JSON object a line, and an error is `{"error": {"reason", "message", "field"}}` on standard error.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 an extra is not installed, 4 no server answers,
130 interrupted.
"""

from tidemill.cli.app import app


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="tidemill")
