"""The server commands. They join the CLI `tidemill` through entry points."""

import asyncio
import json
import logging
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tidemill_ports.event_loop import new_event_loop
from tidemill_ports.garbage import leave_out_what_is_here
from tidemill_services import local_user, server_options
from tidemill_services.app import Addresses, Application
from tidemill_services.domain.errors import CannotStartError
from tidemill_telemetry.logs import log_to_stderr
from tidemill_telemetry.stray_lines import take_over_stderr

logger = logging.getLogger(__name__)


class Commands(TyperGroup):
    """Imports the other commands when they are named: a server that starts would wait an eighth longer for them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All of them, by name."""
        return ["admin", "doctor", *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The one below, or another."""
        if cmd_name == "admin":
            from tidemill_services.admin_commands import admin  # noqa: PLC0415

            return typer.main.get_command(admin)
        if cmd_name == "doctor":
            from tidemill_services.doctor.command import doctor  # noqa: PLC0415

            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(doctor)
            return typer.main.get_command(alone)
        return super().get_command(ctx, cmd_name)


application = typer.Typer(
    cls=Commands, help="The server commands of Tidemill.", add_completion=False, rich_markup_mode=None
)


@application.callback(no_args_is_help=True)
def _of_the_server() -> None:
    """The server commands of Tidemill."""


@application.command()
def serve(
    host: server_options.Host = None,
    port: server_options.Port = None,
    http_port: server_options.HttpPort = None,
    http_origins: server_options.HttpOrigins = None,
    admin_host: server_options.AdminHost = None,
    admin_port: server_options.AdminPort = None,
    data_dir: server_options.DataDir = None,
    database: server_options.DatabaseUrl = None,
    models: server_options.Models = None,
    replica_capacity: server_options.ReplicaCapacity = None,
    replica_device: server_options.ReplicaDevice = None,
    replica_fake_tick_ms: server_options.ReplicaFakeTick = None,
    replica_kernels: server_options.ReplicaKernels = None,
    replica_threads: server_options.ReplicaThreads = None,
    replica_spares: server_options.ReplicaSpares = None,
    start_cache_mib: server_options.StartCacheMib = None,
    auto_session: server_options.AutoSession = None,
    stop_grace: server_options.StopGrace = None,
    reader_patience: server_options.ReaderPatience = None,
    allow_plaintext: server_options.AllowPlaintext = None,
    tls_certificate: server_options.TlsCertificate = None,
    tls_key: server_options.TlsKey = None,
    tls_self_signed: server_options.TlsSelfSigned = None,
    replica_tls_ca: server_options.ReplicaTlsCa = None,
    replica_tls_certificate: server_options.ReplicaTlsCertificate = None,
    replica_tls_key: server_options.ReplicaTlsKey = None,
    max_streams_per_connection: server_options.MaxStreamsPerConnection = None,
    max_connection_age: server_options.MaxConnectionAge = None,
    max_http_connections: server_options.MaxHttpConnections = None,
    log_level: server_options.LogLevel = None,
    log_format: server_options.LogFormat = None,
    access_log: server_options.AccessLog = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line with the addresses when ready.")] = False,
) -> None:
    """Serve models: the control plane and the replicas that it starts.

    Each option is also the environment variable TIDEMILL_<NAME>. Ends in order on SIGTERM and Ctrl-C.
    """
    settings = server_options.read_settings("serve", locals())
    stderr = take_over_stderr() if settings.log_format == "json" else sys.stderr
    log_to_stderr(settings.log_format, settings.log_level, stderr)
    leave_out_what_is_here()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(Application(settings).run(lambda addresses: _say_ready(addresses, as_json=as_json)))
    except CannotStartError as error:
        if settings.log_format == "json":
            logger.critical("%s", error)
        else:
            typer.echo(f"tidemill serve: {error}", err=True)
        raise typer.Exit(1) from None


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
        typer.echo(_how_to_ask(addresses))
        typer.echo(
            f"For programs that speak the OpenAI API: base URL {_url(addresses, addresses.http)}/v1, and a key that "
            "`tidemill key create --auto-session` prints."
        )
        typer.echo("Ctrl-C drains and stops.")
    sys.stdout.flush()


def _how_to_ask(addresses: Addresses) -> str:
    """What to type in another terminal of this machine."""
    question = "tidemill complete 'What does Tidemill do?'"
    if addresses.is_found:
        return f"Ask it from another terminal: {question}"
    variables = [f"TIDEMILL_TARGET={_url(addresses, addresses.grpc)}"]
    if addresses.ca_file:
        variables.append(f"TIDEMILL_CA_FILE={shlex.quote(str(addresses.ca_file))}")
    variables.append(f"TIDEMILL_API_KEY=$(cat {shlex.quote(str(addresses.api_key_file))})")
    return f"Ask it from another terminal: export {' '.join(variables)}; {question}"


def _url(addresses: Addresses, address: str) -> str:
    """As this machine reaches one of these addresses."""
    return f"{'https' if addresses.ca_file else 'http'}://{local_user.on_loopback(address) or address}"
