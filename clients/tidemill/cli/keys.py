"""`tidemill key`: what identifies callers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tidemill.account_results import ApiKey, NewSecret, UsageLimits
from tidemill.cli import limits, options
from tidemill.cli.accounts import full_name
from tidemill.cli.moments import parse_moment
from tidemill.cli.output import note, print_facts, print_json, print_table, short, time_text
from tidemill.client import Client
from tidemill.errors import ApiKeyNotFoundError
from tidemill.plans.accounts import KeySettings

keys = typer.Typer(help="Make keys, look at them, change them, end them.", no_args_is_help=True, rich_markup_mode=None)

AccountOption = Annotated[str, typer.Option("--account", help="The account.  [default: the key's own]")]
KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="accounts/.../keys/..., or the last part where it is your own account's.")
]
DisplayName = Annotated[str | None, typer.Option("--name", help="What people call it.")]
RoleOption = Annotated[str | None, typer.Option(metavar="ROLE", help="user or admin; a new key is a user's.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="inference, sessions, models, jobs or account; may be given several times; all: everything.",
    ),
]
DefaultModel = Annotated[
    str | None, typer.Option("--default-model", metavar="MODEL", help="The model of calls that name none; '': none.")
]
AutoSession = Annotated[
    bool | None,
    typer.Option(help="Whether the OpenAI door opens a session by itself when none is open."),
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it stops working, such as 2030-01-31T12:00:00Z; never: it does not."),
]


@keys.command()
def create(
    name: DisplayName = None,
    account: AccountOption = "",
    role: RoleOption = None,
    scope: Scopes = None,
    default_model: DefaultModel = None,
    auto_session: AutoSession = None,
    expires: Expires = None,
    requests_per_minute: limits.RequestsPerMinute = None,
    generations: limits.Generations = None,
    sessions: limits.Sessions = None,
    tokens_per_minute: limits.TokensPerMinute = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Make a key and print it, this once: it is stored as a hash only."""
    settings = _settings(name, role, scope, default_model, auto_session, expires)
    if (
        asked := limits.changed_limits(UsageLimits(), requests_per_minute, generations, sessions, tokens_per_minute)
    ) is not None:
        settings["limits"] = asked
    with options.connect(target, api_key_env) as client:
        made = client.accounts.create_key(full_name(account), **settings)
    _print_secret(made, as_json=as_json)


@keys.command("list")
def list_(
    account: AccountOption = "",
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """List an account's keys, the newest first."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.list_keys(full_name(account))
    if as_json:
        for key in found:
            print_json(key)
        return
    rows = [
        (one.name, one.role, _scopes(one), short(one.default_model), _state(one), one.display_name) for one in found
    ]
    print_table(["key", "role", "scopes", "model", "state", "name"], rows)


@keys.command()
def show(
    key: KeyArgument,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show a key, without its secret."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.get_key(_full_name(client, key))
    _print(found, as_json=as_json)


@keys.command()
def update(
    key: KeyArgument,
    name: DisplayName = None,
    role: RoleOption = None,
    scope: Scopes = None,
    default_model: DefaultModel = None,
    auto_session: AutoSession = None,
    expires: Expires = None,
    requests_per_minute: limits.RequestsPerMinute = None,
    generations: limits.Generations = None,
    sessions: limits.Sessions = None,
    tokens_per_minute: limits.TokensPerMinute = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Change a key; what is not named stays as it is."""
    settings = _settings(name, role, scope, default_model, auto_session, expires)
    with options.connect(target, api_key_env) as client:
        before = client.accounts.get_key(_full_name(client, key))
        if (
            asked := limits.changed_limits(before.limits, requests_per_minute, generations, sessions, tokens_per_minute)
        ) is not None:
            settings["limits"] = asked
        if not settings:
            raise typer.BadParameter("say what to change.")
        found = client.accounts.update_key(before.name, **settings)
    _print(found, as_json=as_json)


@keys.command()
def rotate(
    key: KeyArgument,
    overlap: Annotated[float, typer.Option(min=0, help="Hours that the old secret stays valid, at most 720.")] = 0,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Give a key a new secret and print it, this once."""
    with options.connect(target, api_key_env) as client:
        made = client.accounts.rotate_key(_full_name(client, key), timedelta(hours=min(overlap, 1_000_000)))
    _print_secret(made, as_json=as_json)


@keys.command()
def revoke(
    key: KeyArgument,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Take a key out of use, for good; its sessions end with it."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.revoke_key(_full_name(client, key))
    _print(found, as_json=as_json)


def _full_name(client: Client, key: str) -> str:
    """The whole name of a key of which the last part is enough where it is the account's own."""
    if "/" in key:
        return key
    found = [one.name for one in client.accounts.list_keys() if one.name.endswith(f"/{key}")]
    if not found:
        raise ApiKeyNotFoundError(f"The account has no key {key}: `tidemill key list` shows them.")
    return found[0]


def _settings(
    name: str | None,
    role: str | None,
    scope: list[str] | None,
    default_model: str | None,
    auto_session: bool | None,
    expires: str | None,
) -> KeySettings:
    settings = KeySettings()
    if name is not None:
        settings["display_name"] = name
    if role is not None:
        settings["role"] = role
    if scope:
        settings["scopes"] = [] if scope == ["all"] else scope
    if default_model is not None:
        settings["default_model"] = default_model
    if auto_session is not None:
        settings["auto_session"] = auto_session
    if expires is not None:
        settings["expire_time"] = None if expires == "never" else parse_moment(expires, "--expires")
    return settings


def _print_secret(made: NewSecret, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    if not made.secret:
        note(
            f"{made.api_key.name} is there, but its secret was lost on the way: `tidemill key rotate` gives it another."
        )
        return
    typer.echo(made.secret)
    note(f"This is {made.api_key.name}. It is shown this once: keep it where only its user can read it.")
    if made.api_key.old_secret_expire_time:
        note(f"The old secret is valid until {time_text(made.api_key.old_secret_expire_time)}.")


def _scopes(key: ApiKey) -> str:
    return " ".join(key.scopes) or "all"


def _state(key: ApiKey) -> str:
    if key.revoke_time:
        return f"revoked {time_text(key.revoke_time)}"
    if key.expire_time:
        verb = "expired" if key.expire_time <= datetime.now(UTC) else "until"
        return f"{verb} {time_text(key.expire_time)}"
    return "valid"


def _print(found: ApiKey, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_facts(
        {
            "key": found.name,
            "name": found.display_name,
            "role": found.role,
            "scopes": _scopes(found),
            "model": short(found.default_model),
            "auto session": "yes" if found.auto_session else "no",
            "made": time_text(found.create_time),
            "state": _state(found),
            "old secret": f"valid until {time_text(found.old_secret_expire_time)}"
            if found.old_secret_expire_time
            else "",
            "limits": limits.limits_text(found.limits),
        }
    )
