"""All checks, in the order in which one would look: what is installed, the machine, then what the settings name."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tidemill_services import local_user
from tidemill_services.doctor.certificates import check_certificates, trusted_by_settings
from tidemill_services.doctor.cli_config import check_cli_config
from tidemill_services.doctor.clock import check_clock, check_time_zone
from tidemill_services.doctor.data_directory import check_data_directory
from tidemill_services.doctor.database import check_lock, check_postgres, examine_file, lock_holder
from tidemill_services.doctor.disk import check_filesystem, check_free_space
from tidemill_services.doctor.engine import ask_runtime, check_gpu, check_runtime, nvidia_driver
from tidemill_services.doctor.finding import Finding, wrong
from tidemill_services.doctor.kernels import check_kernels, library_is_built, processor_flags
from tidemill_services.doctor.models import check_models
from tidemill_services.doctor.packages import check_packages, check_python
from tidemill_services.doctor.ports import Port, check_port
from tidemill_services.doctor.process import check_file_limit, check_grpc_variables, file_limit
from tidemill_services.doctor.spares import ask_spares, check_spares
from tidemill_services.doctor.traces import check_traces, extra_is_installed
from tidemill_services.settings import Settings

Group = Callable[[Settings], Iterable[Finding]]


def examine(settings: Settings) -> list[Finding]:
    """Run every check. The groups run at once, since most of the time goes into waiting."""
    groups: tuple[Group, ...] = (_installation, _machine, _storage, check_certificates, _ports, _models, _cli)
    with ThreadPoolExecutor(len(groups), thread_name_prefix="doctor") as threads:
        found = threads.map(lambda group: _run(group, settings), groups)
        return [finding for findings in found for finding in findings]


def _run(group: Group, settings: Settings) -> list[Finding]:
    """A group's findings; what the system refuses to show is one more."""
    findings = list[Finding]()
    try:
        findings.extend(group(settings))
    except OSError as error:
        findings.append(wrong(group.__name__.strip("_"), f"Could not be examined: {error}. Ask as the server's user."))
    return findings


def _installation(settings: Settings) -> Iterable[Finding]:
    yield check_python()
    yield from check_packages(postgres=_is_postgres(settings))
    runtime = ask_runtime()
    yield check_runtime(runtime, needed=settings.replica_device != "fake")
    yield check_gpu(runtime, driver=nvidia_driver(), needed=settings.replica_device == "cuda")
    are_wanted = settings.replica_kernels != "stock"
    yield check_kernels(processor_flags(), is_built=library_is_built(), are_wanted=are_wanted)


def _machine(_settings: Settings) -> Iterable[Finding]:
    yield check_time_zone(os.environ)
    yield check_file_limit(file_limit())
    yield check_grpc_variables(os.environ)
    yield check_traces(os.environ, is_installed=extra_is_installed())


def _storage(settings: Settings) -> Iterable[Finding]:
    on_postgres = _is_postgres(settings)
    yield from check_data_directory(settings.data_dir)
    folders = [settings.data_dir] if on_postgres else list({settings.data_dir, _sqlite_path(settings).parent})
    mounts = Path("/proc/self/mountinfo")
    text = mounts.read_text() if mounts.exists() else ""
    for folder in folders:
        yield check_filesystem(folder, text, holds_sqlite=not on_postgres)
        yield check_free_space(folder)
    high_water_ms = None
    if on_postgres:
        yield from check_postgres(settings.database_url)
    elif settings.database_url.startswith("sqlite:///"):
        database = _sqlite_path(settings)
        yield check_lock(database, lock_holder(database))
        facts = examine_file(database)
        yield from facts.findings
        high_water_ms = facts.high_water_ms
    else:
        sentence = "--database may be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME."
        yield wrong("database", sentence)
    yield check_clock(datetime.now(UTC), high_water_ms)


def _ports(settings: Settings) -> Iterable[Finding]:
    # Any number of servers share a Postgres, so whose a port is cannot be told there.
    runs_here = _is_postgres(settings) or lock_holder(_sqlite_path(settings)) is not None
    trusted = trusted_by_settings(settings)
    admin = Port("admin_port", settings.admin_host, settings.admin_port, trusted)
    ports = (
        Port("port", settings.host, settings.port, trusted),
        Port("http_port", settings.host, settings.http_port, trusted),
        admin,
    )
    for port in ports:
        yield check_port(port, runs_here=runs_here)
    yield check_spares(settings.replica_spares, ask_spares(admin) if runs_here else None)


def _models(settings: Settings) -> Iterable[Finding]:
    return check_models((settings.data_dir / "models", *settings.models))


def _cli(settings: Settings) -> Iterable[Finding]:
    address = f"{settings.host}:{settings.port}"
    yield check_cli_config(local_user.client_config_path(), local_user.on_loopback(address) or address)


def _is_postgres(settings: Settings) -> bool:
    return settings.database_url.startswith(("postgresql://", "postgres://"))


def _sqlite_path(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))
