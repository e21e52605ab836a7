"""`tidemill session`: what pays."""

from typing import Annotated, TypeAlias

import typer

from tidemill.cli import options
from tidemill.cli.meter import MeterDisplay
from tidemill.cli.output import bill_sentence, credits_of, note, print_facts, print_json, print_table, short, time_text
from tidemill.cli.session_options import (
    IdleTimeout,
    Labels,
    MaxDuration,
    MaxSpend,
    duration_text,
    labels_text,
    session_options,
)
from tidemill.client import Client
from tidemill.errors import FieldInvalidError, SessionNotFoundError
from tidemill.session_results import Meter, Session

sessions = typer.Typer(
    help="Start, stop and look at sessions: what pays for answers.", no_args_is_help=True, rich_markup_mode=None
)

OneSession: TypeAlias = Annotated[
    str, typer.Argument(metavar="SESSION", help="sessions/...  [default: the only open one]")
]


@sessions.command()
def start(
    model: options.ModelOption = None,
    idle_timeout: IdleTimeout = None,
    max_duration: MaxDuration = None,
    max_spend: MaxSpend = None,
    label: Labels = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Start the key's session of a model and wake the model; returns at once.

    It is billed by the second from when the model is ready until `tidemill session stop`, or until it ends by itself:
    when nothing ran for 15 minutes, after 12 hours, or as you say. When it is open already, it stays as it is.
    """
    wanted = session_options(idle_timeout, max_duration, max_spend, label)
    with options.connect(target, api_key_env, model) as client:
        session = client.start_session(**wanted)
    if as_json:
        print_json(session)
        return
    typer.echo(session.name)
    price = credits_of(session.bill.price_microcredits_per_second)
    done = "was open already" if session.already_active else "is open"
    command = f"tidemill session stop --model {short(session.model)}"
    idle = duration_text(session.limits.idle_timeout)
    note(f"The session of {short(session.model)} {done}: {price} a second. `{command}` ends it, or {idle} without use.")


@sessions.command()
def update(
    name: OneSession = "",
    idle_timeout: IdleTimeout = None,
    max_duration: MaxDuration = None,
    max_spend: MaxSpend = None,
    label: Labels = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Change when a session ends by itself, and its labels.

    --max-spend 0 takes that limit away. Labels that are given take the place of all that it has.
    """
    wanted = session_options(idle_timeout, max_duration, max_spend, label)
    if not wanted:
        raise typer.BadParameter("say what to change: --idle-timeout, --max-duration, --max-spend or --label.")
    with options.connect(target, api_key_env) as client:
        session = client.update_session(_named(client, name), **wanted)
    if as_json:
        print_json(session)
    else:
        typer.echo(f"{session.name} ends {_limits(session)}.")


@sessions.command()
def watch(
    name: OneSession = "",
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show a session's live meter until it has ended, or Ctrl-C: what it has cost, and when it ends by itself."""
    last: Meter | None = None
    display = MeterDisplay()
    with options.connect(target, api_key_env) as client, client.watch_session(_named(client, name)) as readings:
        try:
            for reading in readings:
                last = reading
                if as_json:
                    print_json(reading)
                else:
                    display.show(reading)
        finally:
            if not as_json:
                display.stop()
    if last is not None and not as_json:
        typer.echo(bill_sentence(last.session.bill))


@sessions.command()
def stop(
    name: Annotated[
        str,
        typer.Argument(metavar="SESSION", help="sessions/...  [default: the only open one, else the key's of --model]"),
    ] = "",
    model: options.ModelOption = None,
    keep_others: Annotated[
        bool, typer.Option("--keep-others", help="Leave it open while other holders have it.")
    ] = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Stop a session, whoever holds it, and show its bill."""
    with options.connect(target, api_key_env, model) as client:
        found = full_session_name(name) or ("" if model else _only_open(client))
        bill = client.stop_session(name=found, all_holders=not keep_others)
    if as_json:
        print_json(bill)
    else:
        typer.echo(bill_sentence(bill))


def _named(client: Client, name: str) -> str:
    """The session of that name, else the only open one."""
    found = full_session_name(name) or _only_open(client)
    if not found:
        raise SessionNotFoundError("No session is open: name one that has ended, or start one.")
    return found


def full_session_name(name: str) -> str:
    """sessions/{session} of either form; an empty one stays empty."""
    return name if not name or name.startswith("sessions/") else f"sessions/{name}"


def _only_open(client: Client) -> str:
    """The account's open session; empty when there is none, which leaves the choice to the server."""
    found = [one for one in client.list_sessions(open_only=True) if one.is_open]
    if len(found) > 1:
        listed = ", ".join(f"{one.name} ({short(one.model)})" for one in found)
        raise FieldInvalidError(f"{len(found)} sessions are open, so name one of them: {listed}.", field="name")
    return found[0].name if found else ""


@sessions.command("list")
def list_(
    model: options.ModelOption = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 50,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """List the account's sessions, the newest first."""
    with options.connect(target, api_key_env) as client:
        named = client.get_model(model).name if model else ""  # so that a model that is not there is an error
        found = client.list_sessions(named, open_only=open_only, limit=limit)
    if as_json:
        for session in found:
            print_json(session)
        return
    rows = [
        (
            one.name,
            short(one.model),
            _state(one),
            _time(one),
            one.bill.billed_seconds,
            credits_of(one.bill.cost_microcredits),
        )
        for one in found
    ]
    print_table(["session", "model", "state", "started", "seconds", "cost"], rows)


@sessions.command()
def show(
    name: Annotated[str, typer.Argument(metavar="SESSION", help="sessions/...")],
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show a session with its bill until now."""
    with options.connect(target, api_key_env) as client:
        session = client.get_session(full_session_name(name))
    if as_json:
        print_json(session)
        return
    print_facts(
        {
            "session": session.name,
            "model": short(session.model),
            "state": _state(session),
            "started": _time(session),
            "ended": time_text(session.end_time),
            "holders": ", ".join(session.holders),
            "labels": labels_text(session.labels),
            "ends": _limits(session) if session.is_open else "",
            "billed": f"{session.bill.billed_milliseconds / 1000:.3f} s, charged as {session.bill.billed_seconds} s",
            "price": f"{credits_of(session.bill.price_microcredits_per_second)} a second",
            "cost": credits_of(session.bill.cost_microcredits),
        }
    )


def _state(session: Session) -> str:
    return f"{session.state} ({session.end_reason})" if session.end_reason else session.state


def _limits(session: Session) -> str:
    """When it ends by itself."""
    limits = session.limits
    text = f"after {duration_text(limits.idle_timeout)} without use, or {duration_text(limits.max_duration)} in all"
    spend = limits.max_spend_microcredits
    return text if spend is None else f"{text}, or at {credits_of(spend)}"


def _time(session: Session) -> str:
    """When its clock first ran."""
    return time_text(session.start_time) or "not yet"
