"""A process that launches two replicas, says so, and then does nothing until it is killed."""

import asyncio
import secrets
import signal
import sys
from pathlib import Path

from tidemill_services.scaler.launcher import LaunchSpec
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings


async def main(package: Path) -> None:
    """Launch, say `ready`, and wait."""
    launcher = LocalLauncher(LocalLauncherSettings(device="fake"))
    specs = [LaunchSpec(f"replica-{number}", package, 2, 5.0, secrets.token_hex(32)) for number in range(2)]
    replicas = await asyncio.gather(*(launcher.launch(spec) for spec in specs))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(replica.wait() for replica in replicas))


signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
asyncio.run(main(Path(sys.argv[1])))
