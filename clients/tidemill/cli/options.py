"""Options that many commands take, and the client that they lead to."""

from typing import Annotated, TypeAlias

import typer

from tidemill.cli.exits import JSON_KEY
from tidemill.client import Client


def _remember_json(context: typer.Context, value: bool) -> bool:
    context.meta[JSON_KEY] = value
    return value


Target: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--target", help="host:port of the server.  [default: TIDEMILL_TARGET, the config file, 127.0.0.1:7400]"
    ),
]
KeyVariable: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable with the API key.  [default: TIDEMILL_API_KEY, else the config file]",
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", callback=_remember_json, help="Print JSON, an object a line.")
]
ModelOption: TypeAlias = Annotated[str | None, typer.Option("--model", "-m", help="The model.  [default: the key's]")]
ModelArgument: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="The model.  [default: the key's]")
]
MaxTokens: TypeAlias = Annotated[int | None, typer.Option(help="Tokens of the answer at most.  [default: the model's]")]
Temperature: TypeAlias = Annotated[
    float | None, typer.Option(help="0 (always the likeliest token) to 2.  [default: the model's]")
]
TopP: TypeAlias = Annotated[
    float | None, typer.Option(help="Only the likeliest tokens that make up this share.  [default: the model's]")
]
TopK: TypeAlias = Annotated[
    int | None, typer.Option(help="Only this many of the likeliest tokens.  [default: the model's]")
]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Exact: TypeAlias = Annotated[bool, typer.Option("--exact", help="The answer must not depend on what else ran before.")]
NoSession: TypeAlias = Annotated[
    bool, typer.Option("--no-session", help="Fail when the key has no open session, instead of opening one for this.")
]


def connect(target: str | None, key_variable: str | None, model: str | None = None) -> Client:
    """The client that these options ask for."""
    return Client(custom_env_var=key_variable, target=target, model=model)
