"""The CLI's config file: its rights, and whether the server that it names answers, and as it is spoken to."""

from pathlib import Path

from tidemill.connection import read_config_file
from tidemill.errors import ConfigError
from tidemill_services import local_user
from tidemill_services.doctor.finding import Finding, ok, warning, wrong
from tidemill_services.doctor.handshake import tls_trouble


def check_cli_config(path: Path, own_target: str) -> Finding:
    """As the client reads it. `own_target` is where a server with these settings listens."""
    try:
        saved = read_config_file(path)
    except ConfigError as error:
        return wrong("CLI config", str(error))
    if saved is None:
        return ok("CLI config", f"{path} is not there yet; a server on loopback writes it.")
    if local_user.answers(saved.target):
        if (trouble := tls_trouble(saved)) is not None:
            return wrong("CLI config", f"{path} leads to {saved.target}: {trouble}")
        return ok("CLI config", f"{path} leads to {saved.target}, which answers.")
    if saved.target == own_target:
        return ok("CLI config", f"{path} leads to {saved.target}, where no server runs now.")
    return warning(
        "CLI config",
        f"{path} leads to {saved.target}, where nobody answers: start that server, "
        "or `tidemill serve`, which writes the file anew.",
    )
