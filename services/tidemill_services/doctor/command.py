"""The command `tidemill doctor`."""

import json
from typing import Annotated

import typer

from tidemill_services import server_options
from tidemill_services.doctor.examination import examine
from tidemill_services.doctor.finding import Finding, Level


def doctor(
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """Say what is wrong with this installation, and what to do.

    Takes the settings of `serve`, as options or as variables TIDEMILL_<NAME>; changes nothing. Exits with 0 when
    nothing is wrong, warnings allowed, else with 1; with 2 for a wrong setting.
    """
    settings = server_options.read_settings("doctor", locals())
    findings = examine(settings)
    for finding in findings:
        typer.echo(_line(finding, as_json=as_json))
    raise typer.Exit(1 if any(finding.level is Level.WRONG for finding in findings) else 0)


def _line(finding: Finding, *, as_json: bool) -> str:
    if as_json:
        told = {"level": finding.level, "subject": finding.subject, "sentence": finding.sentence}
        return json.dumps(told, ensure_ascii=False)
    return f"{finding.level:<8} {finding.subject}: {finding.sentence}"
