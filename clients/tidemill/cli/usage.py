"""`tidemill usage`: what was used and what it cost."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import typer

from tidemill.billing_results import UsageReport, UsageRow
from tidemill.cli import options
from tidemill.cli.accounts import full_name
from tidemill.cli.csv_text import csv_text
from tidemill.cli.exits import JSON_KEY
from tidemill.cli.moments import parse_moment
from tidemill.cli.output import amount_text, note, print_json, print_table, short, time_text

_LABEL = "label="
_GROUPS: dict[str, tuple[str, Callable[[UsageRow], str]]] = {
    "day": ("day", lambda row: row.day),
    "model": ("model", lambda row: short(row.model)),
    "key": ("api_key", lambda row: row.api_key),
}


def usage(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="day, model, key, label=KEY, or several of these with commas.")
    ] = "day,model",
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_moment, metavar="TIME", help="From this day or time on, UTC.  [default: this month's first]"
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=parse_moment, metavar="TIME", help="Before this day or time, UTC.  [default: now]"),
    ] = None,
    account: Annotated[str, typer.Option("--account", help="The account.  [default: the key's own]")] = "",
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="How it is printed.")] = "table",
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show what sessions used and cost, by day, model or label.

    --format csv gives every column, amounts in microcredits (a millionth of a credit), for a spreadsheet. --json is
    --format json.
    """
    names, label_key = _groups(by)
    is_json = context.meta[JSON_KEY] = as_json or form == "json"
    with options.connect(target, api_key_env) as client:
        report = client.accounts.usage_report(
            full_name(account),
            start_time=since,
            end_time=until,
            group_by=[_GROUPS[name][0] if name in _GROUPS else "label" for name in names],
            label_key=label_key,
        )
    if is_json:
        print_json(report)
    elif form == "csv":
        typer.echo(csv_text(_CSV_COLUMNS, map(_csv_row, report.rows)), nl=False)
    else:
        _print_table(report, names, label_key)


_CSV_COLUMNS = [field.name for field in dataclasses.fields(UsageRow)]


def _groups(by: str) -> tuple[list[str], str]:
    """The names, and the key of the label if it is among them."""
    names, label_key = [], ""
    for part in by.split(","):
        name = part.strip()
        if name.startswith(_LABEL) and not label_key and name != _LABEL:
            label_key = name.removeprefix(_LABEL)
        elif name not in _GROUPS:
            raise typer.BadParameter(f"{part!r} is none of day, model, key, or one label=KEY.", param_hint="--by")
        names.append(name)
    return names, label_key


def _csv_row(row: UsageRow) -> list[str | int]:
    return [getattr(row, name) for name in _CSV_COLUMNS]


def _print_table(report: UsageReport, names: list[str], label_key: str) -> None:
    columns = [name if name in _GROUPS else label_key for name in names]
    rows = [
        [*(_GROUPS[name][1](row) if name in _GROUPS else row.label_value for name in names), *_numbers(row)]
        for row in report.rows
    ]
    total = ["total", *[""] * (len(names) - 1), *_numbers(report.total)]
    numbers = ["sessions", "seconds", "credits", "given back", "generations", "tokens in", "tokens out"]
    print_table([*columns, *numbers], [*rows, total])
    note(f"From {time_text(report.start_time)} to {time_text(report.end_time)}, UTC.")


def _numbers(row: UsageRow) -> list[object]:
    return [
        row.num_sessions,
        row.billed_seconds,
        amount_text(row.charged_microcredits),
        amount_text(row.refunded_microcredits),
        row.num_generations,
        row.prompt_tokens,
        row.completion_tokens,
    ]
