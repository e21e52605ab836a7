"""`tidemill account`: who owns keys and pays."""

from typing import Annotated

import typer

from tidemill.account_results import Account, AuditEvent, UsageLimits
from tidemill.cli import limits, options
from tidemill.cli.output import amount_text, credits_of, print_facts, print_json, print_table, time_text
from tidemill.plans.accounts import AccountSettings

accounts = typer.Typer(
    help="Look at accounts, make and change them, give them credits.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account.  [default: the key's own]")]
DisplayName = Annotated[str | None, typer.Option("--name", help="What people call it.")]

PaysPerToken = Annotated[
    bool | None,
    typer.Option(
        "--per-token/--no-per-token", help="Whether answers are paid by their tokens where no session of the key pays."
    ),
]


@accounts.command()
def show(
    account: AccountArgument = "",
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show an account with its credits and limits."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.get(full_name(account))
    _print(found, as_json=as_json)


@accounts.command()
def create(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id: lower case, digits and -.")],
    name: DisplayName = None,
    pays_per_token: PaysPerToken = None,
    requests_per_minute: limits.RequestsPerMinute = None,
    generations: limits.Generations = None,
    sessions: limits.Sessions = None,
    tokens_per_minute: limits.TokensPerMinute = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Make an account; for administrators. `tidemill key create --account` gives it a key."""
    settings = AccountSettings(display_name=name or "", pays_per_token=bool(pays_per_token))
    if (
        asked := limits.changed_limits(UsageLimits(), requests_per_minute, generations, sessions, tokens_per_minute)
    ) is not None:
        settings["limits"] = asked
    with options.connect(target, api_key_env) as client:
        found = client.accounts.create(account.removeprefix("accounts/"), **settings)
    _print(found, as_json=as_json)


@accounts.command()
def update(
    account: AccountArgument = "",
    name: DisplayName = None,
    use_cache: Annotated[bool | None, typer.Option("--cache/--no-cache", help="Whether jobs read the cache.")] = None,
    pays_per_token: PaysPerToken = None,
    requests_per_minute: limits.RequestsPerMinute = None,
    generations: limits.Generations = None,
    sessions: limits.Sessions = None,
    tokens_per_minute: limits.TokensPerMinute = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Change an account; its limits only as an administrator."""
    settings = AccountSettings()
    if name is not None:
        settings["display_name"] = name
    if use_cache is not None:
        settings["use_cache"] = use_cache
    if pays_per_token is not None:
        settings["pays_per_token"] = pays_per_token
    with options.connect(target, api_key_env) as client:
        before = client.accounts.get(full_name(account))
        if (
            asked := limits.changed_limits(before.limits, requests_per_minute, generations, sessions, tokens_per_minute)
        ) is not None:
            settings["limits"] = asked
        if not settings:
            raise typer.BadParameter("say what to change.")
        found = client.accounts.update(before.name, **settings)
    _print(found, as_json=as_json)


@accounts.command("list")
def list_(
    as_json: options.AsJson = False, target: options.Target = None, api_key_env: options.KeyVariable = None
) -> None:
    """List all accounts; for administrators."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.list()
    if as_json:
        for account in found:
            print_json(account)
        return
    rows = [
        (
            one.name,
            time_text(one.create_time),
            amount_text(one.balance_microcredits),
            limits.limits_text(one.limits),
            one.display_name,
        )
        for one in found
    ]
    print_table(["account", "made", "credits", "limits", "name"], rows)


@accounts.command()
def audit(
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="The account.  [default: the key's own; all for administrators]")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 50,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """List what was done to accounts and keys, the newest first."""
    with options.connect(target, api_key_env) as client:
        found = client.accounts.list_events(full_name(account), limit=limit)
    if as_json:
        for event in found:
            print_json(event)
        return
    rows = [
        (time_text(one.event_time), one.actor or "the server", one.action, one.resource, _what(one)) for one in found
    ]
    print_table(["when", "who", "what", "on what", "changes"], rows)


def full_name(account: str) -> str:
    """accounts/{account} of either form; an empty one stays empty."""
    return account if not account or account.startswith("accounts/") else f"accounts/{account}"


def _what(event: AuditEvent) -> str:
    return ", ".join(f"{one.field}: {one.old_value or '-'} → {one.new_value or '-'}" for one in event.changes)


def _print(found: Account, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_facts(
        {
            "account": found.name,
            "name": found.display_name,
            "made": time_text(found.create_time),
            "balance": credits_of(found.balance_microcredits),
            "held": credits_of(found.held_microcredits),
            "pays per token": "yes" if found.pays_per_token else "no",
            "cache": "on" if found.use_cache else "off",
            "limits": limits.limits_text(found.limits),
        }
    )
