"""A real Prometheus for tests: Debian's package, in a process of its own, and what it says over its HTTP API."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("prometheus", "promtool")
SCRAPE_SECONDS = 1
START_SECONDS = 60.0
STOP_SECONDS = 30.0

Labels = frozenset[tuple[str, str]]
"""What names one series of a metric."""

Samples = list[tuple[float, float]]
"""Times and values, oldest first."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is scraped: a page of one address, which has this name in the label `instance`."""

    address: str
    instance: str
    path: str = "/metrics"


@pytest.fixture(scope="session")
def prometheus_programs() -> None:
    """Where Prometheus is not installed its tests are skipped, in CI they fail."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing and os.environ.get("CI"):
        raise AssertionError(f"{' and '.join(missing)} must be installed: apt-get install prometheus")
    if missing:
        pytest.skip(f"{' and '.join(missing)} IS NOT INSTALLED, so nothing is tested with a real Prometheus")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    url: str
    instances: tuple[str, ...]

    def query(self, expression: str) -> dict[Labels, float]:
        """What an expression is now, series by series."""
        return {_labels(found): float(found["value"][1]) for found in self._ask(expression)}

    def samples(self, selector: str, window: str = "1h") -> dict[Labels, Samples]:
        """What was scraped, as it was scraped."""
        return {
            _labels(found): [(float(at), float(value)) for at, value in found["values"]]
            for found in self._ask(f"{selector}[{window}]")
        }

    def wait_until(self, condition: Callable[["Prometheus"], bool], what: str, seconds: float = 120.0) -> None:
        """Wait until something is true of it."""
        end = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < end, f"Prometheus did not see {what} within {seconds:g} s"
            time.sleep(SCRAPE_SECONDS / 10)

    def wait_for_scrapes(self, *instances: str) -> None:
        """Wait until these targets, or all, were read by a scrape that began after this."""
        # By its own clock: the time of a page is that of its scrape's beginning, rounded a little.
        (now,) = self.query("vector(time())").values()
        began = now + 0.01

        def has_read(prometheus: "Prometheus") -> bool:
            read_at = prometheus.query("max by (instance) (timestamp(up) and (up == 1))")
            return all(read_at.get(_target(name), 0.0) > began for name in instances or self.instances)

        self.wait_until(has_read, "a new page of every target")

    def _ask(self, expression: str) -> list[dict[str, Any]]:
        arguments = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=60) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
            return result


@contextmanager
def prometheus_server(folder: Path, *jobs: Job) -> Iterator[Prometheus]:
    """One that scrapes these, every second, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(_config(jobs, mark)))  # which YAML takes
    for _ in range(5):  # until a port was free
        process, url = _start(folder, config)
        try:
            if _is_ready(process, url, mark):
                yield Prometheus(url, tuple(job.instance for job in jobs))
                return
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise AssertionError(f"Prometheus did not start:\n{(folder / 'prometheus.log').read_text()[-4000:]}")


def _config(jobs: tuple[Job, ...], mark: str) -> Mapping[str, object]:
    scrape = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
    return {
        "global": {**scrape, "external_labels": {"mark": mark}},
        "scrape_configs": [
            {
                "job_name": f"{number}",
                "metrics_path": job.path,
                "static_configs": [{"targets": [job.address], "labels": {"instance": job.instance}}],
            }
            for number, job in enumerate(jobs)
        ],
    }


def _start(folder: Path, config: Path) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={place}", "--log.level=warn"]
    with (folder / "prometheus.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder), f"http://{place}"


def _is_ready(process: "subprocess.Popen[bytes]", url: str, mark: str) -> bool:
    """Wait until it answers; False when it ended, as without its port. Another one may have that: `mark` is ours."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with (
                urllib.request.urlopen(f"{url}/-/ready", timeout=60),
                urllib.request.urlopen(f"{url}/api/v1/status/config", timeout=60) as response,
            ):
                if mark in response.read().decode():
                    return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def _target(instance: str) -> Labels:
    return frozenset({("instance", instance)})


def _labels(found: Mapping[str, Any]) -> Labels:
    return frozenset((name, value) for name, value in found["metric"].items() if name != "job")
