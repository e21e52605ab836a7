"""What a server process is given: file descriptors and the variables that gRPC reads."""

import resource
from collections.abc import Mapping

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

MIN_FILES = 128
FEW_FILES = 1024


def file_limit() -> int:
    """How many files and connections this process may have open; -1: any number."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_file_limit(limit: int) -> Finding:
    """Whether it is enough for connections: each caller has one, each replica some."""
    if limit == resource.RLIM_INFINITY:
        return ok("open files", "Any number.")
    if limit < MIN_FILES:
        return wrong(
            "open files", f"A process may have only {limit} files open: run `ulimit -n 4096` before the server."
        )
    if limit < FEW_FILES:
        return warning(
            "open files",
            f"A process may have only {limit} files open, one for each caller: run `ulimit -n 4096` before the server.",
        )
    return ok("open files", f"{limit:,} at once.")


def check_grpc_variables(environ: Mapping[str, str]) -> Finding:
    """Variables that change gRPC for the worse in a server."""
    if environ.get("GRPC_TRACE") or environ.get("GRPC_VERBOSITY", "").upper() == "DEBUG":
        return warning(
            "gRPC variables",
            "GRPC_TRACE or GRPC_VERBOSITY has gRPC log what it does, which is slow and may show keys: unset them.",
        )
    if environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes"):
        return warning(
            "gRPC variables",
            "GRPC_ENABLE_FORK_SUPPORT is on; Tidemill starts processes and never forks a running gRPC, and its "
            "handlers can hang those starts: unset it.",
        )
    return ok("gRPC variables", "None that matters is set.")
