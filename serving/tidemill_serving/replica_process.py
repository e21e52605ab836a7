"""The process of a replica, from its command line to its end."""

import asyncio
import json
import logging
import os
import signal
import sys
import time

from tidemill_ports.event_loop import new_event_loop
from tidemill_ports.garbage import leave_out_what_is_here
from tidemill_serving.lifeline import die_with_parent
from tidemill_serving.package_engine import engine_for
from tidemill_serving.server import Replica
from tidemill_serving.settings import ReplicaSettings
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_times import StartStep, StartTimes
from tidemill_telemetry.logs import log_to_stderr, name_process
from tidemill_telemetry.tracing import Tracing, open_tracing

_log = logging.getLogger("tidemill_serving")


def run_replica(settings: ReplicaSettings, cache: StartCache, begun_at: float) -> int:
    """Run a replica until it is drained (0) or cannot be started (1). `cache` has begun to open its package.

    `begun_at` is when its start began, on the clock of `time.monotonic`.
    """
    times = StartTimes()
    times.note(StartStep.PROCESS, time.monotonic() - begun_at)
    log_to_stderr(settings.log_format, settings.log_level)
    if settings.replica_id:
        name_process(replica=settings.replica_id)
    tracing = open_tracing("tidemill-replica", {"service.instance.id": settings.replica_id or str(os.getpid())})
    try:
        if settings.parent_pid is not None:
            die_with_parent(settings.parent_pid)
        leave_out_what_is_here()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            failure = runner.run(_serve(settings, cache, tracing, times))
    except OSError as error:
        failure = f"The replica cannot start: {error}"
    tracing.close()
    if failure is not None:
        _log.critical("%s", failure)  # the launcher shows the last line of stderr
        return 1
    return 0


async def _serve(settings: ReplicaSettings, cache: StartCache, tracing: Tracing, times: StartTimes) -> str | None:
    times.enter(StartStep.LISTEN)
    replica = Replica(engine_for(settings, times, cache), settings.token, settings.server, tracing, times)
    address = await replica.open(settings.listen, settings.tls)
    _listen_to_signals(replica)
    sys.stdout.write(json.dumps({"address": address}) + "\n")
    sys.stdout.flush()
    return await replica.run()


def _listen_to_signals(replica: Replica) -> None:
    """The first SIGTERM or SIGINT drains; the second one ends the process at once."""
    told = False

    def hear(number: signal.Signals) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        replica.drain()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hear, number)
