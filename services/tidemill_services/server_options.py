"""The options of `serve`, which `doctor` takes too. Each is a setting of the same name."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill_services.settings import (
    MAX_CONNECTION_AGE_SECONDS,
    MAX_READER_PATIENCE_SECONDS,
    MAX_STOP_GRACE_SECONDS,
    Settings,
    SettingsError,
    seconds,
)

_HIGHEST_SECONDS = {
    "stop_grace": MAX_STOP_GRACE_SECONDS,
    "reader_patience": MAX_READER_PATIENCE_SECONDS,
    "max_connection_age": MAX_CONNECTION_AGE_SECONDS,
}

Host = Annotated[str | None, typer.Option(help="Where gRPC and HTTP listen.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="gRPC port; 0 takes a free one.  [default: 7400]")]
HttpPort = Annotated[int | None, typer.Option(help="HTTP port; 0 takes a free one.  [default: 7480]")]
HttpOrigins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Pages in a browser that may use the OpenAI door, such as https://chat.example.org, or * for all; may be "
        "given several times.",
    ),
]
AdminHost = Annotated[
    str | None, typer.Option(help="Where the admin port listens; it asks for no key.  [default: 127.0.0.1]")
]
AdminPort = Annotated[
    int | None, typer.Option(help="Port of metrics and readiness; 0 takes a free one.  [default: 7490]")
]
DataDir = Annotated[Path | None, typer.Option(help="Where the database, keys and models lie.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="URL of a Postgres database.  [default: a SQLite file in the data directory]")
]
Models = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="A folder of model packages; may be given several times."),
]
ReplicaCapacity = Annotated[int | None, typer.Option(help="Replicas at once.  [default: 4]")]
ReplicaDevice = Annotated[
    str | None,
    typer.Option(help="cpu, cuda (an NVIDIA GPU), or fake: answers without a model.  [default: cpu]"),
]
ReplicaFakeTick = Annotated[
    int | None, typer.Option(help="Milliseconds of a step of the fake device; 0: as fast as it can.  [default: 5]")
]
ReplicaKernels = Annotated[
    str | None,
    typer.Option(
        help="Whose kernels compute on the processor: auto (the faster ones), own (Tidemill's, or the replica does not "
        "start), stock (ONNX Runtime's).  [default: auto]"
    ),
]
ReplicaThreads = Annotated[int | None, typer.Option(help="Threads of one replica; 0: one per core.  [default: 0]")]
ReplicaSpares = Annotated[
    int | None, typer.Option(help="Processes that wait to become a replica, for short cold starts.  [default: 1]")
]
StartCacheMib = Annotated[
    int | None, typer.Option(help="MiB of disk for what makes replicas start faster; 0: none.  [default: 8192]")
]
AutoSession = Annotated[
    bool | None,
    typer.Option(help="The OpenAI door opens sessions of the local user's key by itself.  [default: no]"),
]
StopGrace = Annotated[float | None, typer.Option(help="Seconds that running streams have to finish.  [default: 30]")]
ReaderPatience = Annotated[
    float | None,
    typer.Option(help="Seconds in which a gRPC caller may take nothing of its stream, or is cut.  [default: 60]"),
]
AllowPlaintext = Annotated[
    bool | None, typer.Option(help="Listen unencrypted where others can reach it.  [default: no]")
]
TlsCertificate = Annotated[
    Path | None, typer.Option(help="PEM certificate of this server: all three ports then speak TLS.")
]
TlsKey = Annotated[Path | None, typer.Option(help="PEM key of the certificate.")]
TlsSelfSigned = Annotated[
    bool | None, typer.Option(help="Speak TLS with a certificate made for this machine.  [default: no]")
]
ReplicaTlsCa = Annotated[
    Path | None, typer.Option(help="PEM certificate of the CA that replicas and their callers show one of.")
]
ReplicaTlsCertificate = Annotated[
    Path | None, typer.Option(help="PEM certificate of that CA, shown to replicas; TLS with them.")
]
ReplicaTlsKey = Annotated[Path | None, typer.Option(help="PEM key of that certificate.")]
MaxStreamsPerConnection = Annotated[
    int | None, typer.Option(help="Calls that one gRPC connection runs at once.  [default: 1000]")
]
MaxConnectionAge = Annotated[
    float | None, typer.Option(help="Seconds; then a client connects anew, and what runs goes on.  [default: 3600]")
]
MaxHttpConnections = Annotated[int | None, typer.Option(help="Connections at once to each HTTP port.  [default: 1000]")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.  [default: info]")]
LogFormat = Annotated[str | None, typer.Option(help="text, or json: one object a line.  [default: text]")]
AccessLog = Annotated[bool | None, typer.Option(help="Log a line for each call at its end.  [default: access-log]")]


def read_settings(command: str, given: dict[str, Any]) -> Settings:
    """The settings of options by their names, `as_json` aside. A wrong one ends the command with 2 and a sentence."""
    try:
        return Settings.read(**{name: _setting(name, value) for name, value in given.items() if name != "as_json"})
    except SettingsError as error:
        typer.echo(f"tidemill {command}: {error}", err=True)
        raise typer.Exit(2) from None


def _setting(name: str, value: Any) -> Any:
    if value is not None and name in _HIGHEST_SECONDS:
        return seconds(name, value, _HIGHEST_SECONDS[name])
    if name in ("models", "http_origins"):
        return tuple(value) if value else None
    return value
