"""The three ports: free, held by a Tidemill, or held by somebody else."""

import errno
import http.client
import socket
from dataclasses import dataclass
from typing import Literal

from tidemill_services.doctor.finding import Finding, ok, warning, wrong
from tidemill_services.doctor.handshake import HANDSHAKE_SECONDS, Trusted, speaks_tls

_ANSWER_SECONDS = 5.0  # a few milliseconds are usual; longer of a server at work
_PAGE_BYTES = 64  # more than ours have
_SERVICE = "tidemill.v1.InferenceService"
_STATES = (b"\x08\x01", b"\x08\x02")  # grpc.health.v1.HealthCheckResponse: SERVING, NOT_SERVING while it stops
_OTHERWISE = {
    True: "is held by a server that speaks TLS: give the doctor its settings of TLS too, or choose another port.",
    False: "is held by a server that does not speak TLS, as these settings say it should: restart it with them.",
}
_PAGES = {"http_port": ("/healthz", (b"ok\n",)), "admin_port": ("/readyz", (b"ready\n", b"not ready\n"))}


@dataclass(frozen=True, slots=True)
class Port:
    """One of the ports that a server listens on."""

    setting: Literal["port", "http_port", "admin_port"]
    host: str
    number: int
    trusted: Trusted | None = None  # the certificate that it should present; None: it should speak plaintext


def check_port(port: Port, *, runs_here: bool) -> Finding:
    """Whether a server could listen there, or one does.

    `runs_here`: a server has this data directory, so a Tidemill that answers is taken to be that one.
    """
    option = f"--{port.setting.replace('_', '-')}"
    where = f"{port.host}:{port.number}"
    if port.number == 0:
        return ok(option, "0: the server takes a free one.")
    if not _is_held(port):
        refusal = _refusal(port)
        return (
            wrong(option, f"{where} cannot be listened on: {refusal}.") if refusal else ok(option, f"{where} is free.")
        )
    if not _answers_as_tidemill(port):
        if (port.trusted is None) == speaks_tls(_reachable(port.host), port.number):
            return wrong(option, f"{where} {_OTHERWISE[port.trusted is None]}")
        return wrong(
            option,
            f"{where} is held by another program, or by a server that does not answer: "
            f"stop it or choose another {option}.",
        )
    if not runs_here:
        return warning(
            option,
            f"A Tidemill with another data directory answers on {where}: stop it or choose another {option} "
            "before a server starts here.",
        )
    return ok(option, f"A Tidemill answers on {where}.")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not listened on


def _is_held(port: Port) -> bool:
    try:
        with socket.create_connection((_reachable(port.host), port.number), timeout=_ANSWER_SECONDS):
            return True
    except TimeoutError:
        return True  # somebody has it and does not take the connection
    except OSError:
        return False


def _refusal(port: Port) -> str:
    """Why nobody may listen there, in words and with what to do; empty when it is free. Nothing listens meanwhile."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(port.host, port.number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EACCES:
            return "ports below 1024 are root's; choose a higher one"
        if error.errno == errno.EADDRNOTAVAIL:
            return "this machine does not have that address; choose one that `ip address` lists"
        return error.strerror or str(error)
    return ""


def _answers_as_tidemill(port: Port) -> bool:
    if port.setting == "port":
        return _knows_our_service(f"{_reachable(port.host)}:{port.number}", port.trusted)
    path, expected = _PAGES[port.setting]
    return read_page(port, path, num_bytes=_PAGE_BYTES) in expected


def read_page(port: Port, path: str, *, num_bytes: int) -> bytes:
    """The start of what is served there under a path; empty where nobody answers."""
    host = _reachable(port.host)
    connection = http.client.HTTPConnection(host, port.number, timeout=_ANSWER_SECONDS)
    if port.trusted is not None:
        connection = http.client.HTTPSConnection(
            host, port.number, timeout=HANDSHAKE_SECONDS, context=port.trusted.context()
        )
    try:
        connection.request("GET", path)
        return connection.getresponse().read(num_bytes)
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()


def _knows_our_service(target: str, trusted: Trusted | None) -> bool:
    """Ask gRPC's health service for ours by its name; another program's server does not know that one."""
    try:
        import grpc  # noqa: PLC0415 - may be what is missing
    except ImportError:
        return False
    request = b"\x0a" + bytes([len(_SERVICE)]) + _SERVICE.encode()
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    seconds = _ANSWER_SECONDS if trusted is None else HANDSHAKE_SECONDS
    if trusted is None:
        opened = grpc.insecure_channel(target, options=options)
    else:
        options.append(("grpc.ssl_target_name_override", trusted.name))
        opened = grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted.certificate_pem), options=options)
    with opened as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda raw: raw, lambda raw: raw)
        try:
            return bool(check(request, timeout=seconds) in _STATES)
        except grpc.RpcError:
            return False
