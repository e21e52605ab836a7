"""The server commands. They join the CLI `tidemill` through entry points."""

import json
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tidemill_services.admin_commands import admin
from tidemill_services.app import Addresses, Application
from tidemill_services.doctor.command import doctor
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.settings import (
    MAX_CONNECTION_AGE_SECONDS,
    MAX_READER_PATIENCE_SECONDS,
    MAX_STOP_GRACE_SECONDS,
    Settings,
    SettingsError,
    seconds,
)
from tidemill_telemetry.logs import log_to_stderr
from tidemill_telemetry.stray_lines import take_over_stderr

logger = logging.getLogger(__name__)

application = typer.Typer(
    help="The server commands of Tidemill.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


application.command()(doctor)
application.add_typer(admin, name="admin")


@application.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Where gRPC and HTTP listen.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="gRPC port; 0 takes a free one.  [default: 7400]")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port; 0 takes a free one.  [default: 7480]")] = None,
    admin_host: Annotated[
        str | None, typer.Option(help="Where the admin port listens; it asks for no key.  [default: 127.0.0.1]")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of metrics and readiness; 0 takes a free one.  [default: 7490]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the database, keys and models lie.")] = None,
    database: Annotated[
        str | None, typer.Option(help="URL of a Postgres database.  [default: a SQLite file in the data directory]")
    ] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="A folder of model packages; may be given several times."),
    ] = None,
    replica_capacity: Annotated[int | None, typer.Option(help="Replicas at once.  [default: 4]")] = None,
    replica_device: Annotated[
        str | None, typer.Option(help="cpu, or fake: answers without a model, to measure the rest.  [default: cpu]")
    ] = None,
    replica_fake_tick_ms: Annotated[
        int | None, typer.Option(help="Milliseconds of a step of the fake device; 0: as fast as it can.  [default: 5]")
    ] = None,
    replica_threads: Annotated[
        int | None, typer.Option(help="Threads of one replica; 0: one per core.  [default: 0]")
    ] = None,
    auto_session: Annotated[
        bool | None,
        typer.Option(help="The OpenAI door opens sessions of the local user's key by itself.  [default: no]"),
    ] = None,
    stop_grace: Annotated[
        float | None, typer.Option(help="Seconds that running streams have to finish.  [default: 30]")
    ] = None,
    reader_patience: Annotated[
        float | None,
        typer.Option(help="Seconds in which a gRPC caller may take nothing of its stream, or is cut.  [default: 60]"),
    ] = None,
    allow_plaintext: Annotated[
        bool | None, typer.Option(help="Listen unencrypted where others can reach it.  [default: no]")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM certificate of this server: all three ports then speak TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
    tls_self_signed: Annotated[
        bool | None, typer.Option(help="Speak TLS with a certificate made for this machine.  [default: no]")
    ] = None,
    replica_tls_ca: Annotated[
        Path | None, typer.Option(help="PEM certificate of the CA that replicas and their callers show one of.")
    ] = None,
    replica_tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM certificate of that CA, shown to replicas; TLS with them.")
    ] = None,
    replica_tls_key: Annotated[Path | None, typer.Option(help="PEM key of that certificate.")] = None,
    max_streams_per_connection: Annotated[
        int | None, typer.Option(help="Calls that one gRPC connection runs at once.  [default: 1000]")
    ] = None,
    max_connection_age: Annotated[
        float | None, typer.Option(help="Seconds; then a client connects anew, and what runs goes on.  [default: 3600]")
    ] = None,
    max_http_connections: Annotated[
        int | None, typer.Option(help="Connections at once to each HTTP port.  [default: 1000]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.  [default: info]")] = None,
    log_format: Annotated[str | None, typer.Option(help="text, or json: one object a line.  [default: text]")] = None,
    access_log: Annotated[
        bool | None, typer.Option(help="Log a line for each call at its end.  [default: access-log]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line with the addresses when ready.")] = False,
) -> None:
    """Serve models: the control plane and the replicas that it starts.

    Each option is also the environment variable TIDEMILL_<NAME>. Ends in order on SIGTERM and Ctrl-C.
    """
    try:
        settings = Settings.read(
            host=host,
            port=port,
            http_port=http_port,
            admin_host=admin_host,
            admin_port=admin_port,
            data_dir=data_dir,
            database=database,
            models=tuple(models) if models else None,
            replica_capacity=replica_capacity,
            replica_device=replica_device,
            replica_fake_tick_ms=replica_fake_tick_ms,
            replica_threads=replica_threads,
            auto_session=auto_session,
            stop_grace=_seconds("stop_grace", stop_grace, MAX_STOP_GRACE_SECONDS),
            reader_patience=_seconds("reader_patience", reader_patience, MAX_READER_PATIENCE_SECONDS),
            allow_plaintext=allow_plaintext,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_self_signed=tls_self_signed,
            replica_tls_ca=replica_tls_ca,
            replica_tls_certificate=replica_tls_certificate,
            replica_tls_key=replica_tls_key,
            max_streams_per_connection=max_streams_per_connection,
            max_connection_age=_seconds("max_connection_age", max_connection_age, MAX_CONNECTION_AGE_SECONDS),
            max_http_connections=max_http_connections,
            log_level=log_level,
            log_format=log_format,
            access_log=access_log,
        )
    except SettingsError as error:
        typer.echo(f"tidemill serve: {error}", err=True)
        raise typer.Exit(2) from None
    stderr = take_over_stderr() if settings.log_format == "json" else sys.stderr
    log_to_stderr(settings.log_format, settings.log_level, stderr)
    try:
        uvloop.run(Application(settings).run(lambda addresses: _say_ready(addresses, as_json=as_json)))
    except CannotStartError as error:
        if settings.log_format == "json":
            logger.critical("%s", error)
        else:
            typer.echo(f"tidemill serve: {error}", err=True)
        raise typer.Exit(1) from None


def _seconds(name: str, number: float | None, highest: int) -> timedelta | None:
    return None if number is None else seconds(name, number, highest)


def _say_ready(addresses: Addresses, *, as_json: bool) -> None:
    if as_json:
        line = {
            "grpc": addresses.grpc,
            "http": addresses.http,
            "admin": addresses.admin,
            "api_key_file": str(addresses.api_key_file),
            "ca_file": str(addresses.ca_file) if addresses.ca_file else None,
        }
        typer.echo(json.dumps(line))
    else:
        places = f"gRPC on {addresses.grpc}, HTTP on {addresses.http}, admin on {addresses.admin}"
        typer.echo(f"Tidemill serves {places}{', all with TLS' if addresses.ca_file else ''}.")
        typer.echo(
            "Ask it from another terminal: tidemill complete 'What does Tidemill do?'   Ctrl-C drains and stops."
        )
    sys.stdout.flush()
