"""The command `tidemill doctor`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tidemill_services.doctor.examination import examine
from tidemill_services.doctor.finding import Finding, Level
from tidemill_services.settings import Settings, SettingsError


def doctor(
    host: Annotated[str | None, typer.Option(help="Where gRPC and HTTP listen.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="gRPC port.  [default: 7400]")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port.  [default: 7480]")] = None,
    admin_host: Annotated[str | None, typer.Option(help="Where the admin port listens.  [default: 127.0.0.1]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of metrics and readiness.  [default: 7490]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the database, keys and models lie.")] = None,
    database: Annotated[
        str | None, typer.Option(help="URL of the database.  [default: a SQLite file in the data directory]")
    ] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="A folder of model packages; may be given several times."),
    ] = None,
    replica_device: Annotated[str | None, typer.Option(help="cpu, or fake.  [default: cpu]")] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """Say what is wrong with this installation, and what to do.

    Takes the settings of `serve`, as options or as variables TIDEMILL_<NAME>; changes nothing. Exits with 0 when
    nothing is wrong, warnings allowed, else with 1; with 2 for a wrong setting.
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
            replica_device=replica_device,
            allow_plaintext=allow_plaintext,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_self_signed=tls_self_signed,
            replica_tls_ca=replica_tls_ca,
            replica_tls_certificate=replica_tls_certificate,
            replica_tls_key=replica_tls_key,
        )
    except SettingsError as error:
        typer.echo(f"tidemill doctor: {error}", err=True)
        raise typer.Exit(2) from None
    findings = examine(settings)
    for finding in findings:
        typer.echo(_line(finding, as_json=as_json))
    raise typer.Exit(1 if any(finding.level is Level.WRONG for finding in findings) else 0)


def _line(finding: Finding, *, as_json: bool) -> str:
    if as_json:
        told = {"level": finding.level, "subject": finding.subject, "sentence": finding.sentence}
        return json.dumps(told, ensure_ascii=False)
    return f"{finding.level:<8} {finding.subject}: {finding.sentence}"
