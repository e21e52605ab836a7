"""A real Prometheus scrapes two control processes on one Postgres, through a restart of one of them."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from tests.databases import PostgresServer, postgres_server
from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.metrics_page import read_page
from tests.prometheus_server import Job, Prometheus, Samples, prometheus_programs, prometheus_server
from tests.scrape_front import Front, front
from tests.server_process import ServerProcess, server_process

__all__ = ["postgres_server", "prometheus_programs"]

METHOD = "/tidemill.v1.InferenceService/Generate"


@dataclass
class Process:
    """One control process, in all its lives, and what the test itself knows of what it did."""

    front: Front
    truth: Counter[str] = field(default_factory=Counter)

    def serve(self, wire: Wire, num_generations: int) -> None:
        """Have it answer."""
        for _ in range(num_generations):
            usage = list(wire.generate(max_tokens=8))[-1].end.usage
            self.truth["tidemill_prompt_tokens_total"] += usage.prompt_tokens
            self.truth["tidemill_completion_tokens_total"] += usage.completion_tokens
            self.truth["tidemill_generation_seconds_count"] += 1
            self.truth["tidemill_requests_total"] += 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What was done, and who watched."""

    prometheus: Prometheus
    processes: dict[str, Process]
    num_refused: int


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, prometheus_programs: None
) -> Iterator[Scene]:
    """Two processes serve, one is stopped and comes again, both serve again."""
    folder = tmp_path_factory.mktemp("prometheus")
    url = postgres_server.create_database()
    with ExitStack() as parts:
        wire, server = _begin(parts, folder / "a", url)
        (folder / "b").mkdir()
        shutil.copy2(folder / "a" / "secret", folder / "b" / "secret")  # one platform, one secret
        processes = {name: Process(parts.enter_context(front())) for name in ("a", "b")}
        processes["a"].front.targets = [server.admin]
        jobs = [Job(process.front.address, name) for name, process in processes.items()]
        prometheus = parts.enter_context(prometheus_server(folder / "prometheus", *jobs))
        with ExitStack() as first_life:
            other_wire, other = _begin(first_life, folder / "b", url)
            processes["b"].front.targets = [other.admin]
            prometheus.wait_for_scrapes()
            processes["a"].serve(wire, 3)
            processes["b"].serve(other_wire, 2)
            num_refused = _be_refused(wire)
            prometheus.wait_for_scrapes()
        other_wire, other = _begin(parts, folder / "b", url)
        processes["b"].front.targets = [other.admin]
        prometheus.wait_for_scrapes()
        processes["b"].serve(other_wire, 1)
        processes["a"].serve(wire, 1)
        prometheus.wait_for_scrapes()
        yield Scene(prometheus, processes, num_refused)
    postgres_server.drop_database(url)


def _begin(parts: ExitStack, data_dir: Path, url: str) -> tuple[Wire, ServerProcess]:
    """Start a process; its own key has a session of the model."""
    server = parts.enter_context(server_process(data_dir, "--database", url, "--replica-threads", "1"))
    wire = parts.enter_context(wire_to(server))
    wire.start()
    return wire, server


def _be_refused(wire: Wire) -> int:
    for number in range(2):
        with pytest.raises(grpc.RpcError):
            list(wire.generate(model=f"none-{number}"))
    return 2


def grown(samples: Samples) -> float:
    """How much a counter grew, its new beginnings told apart, as `increase()` does before it extrapolates."""
    return sum(value - before if value >= before else value for (_, before), (_, value) in pairwise(samples))


SELECTORS = {
    "tidemill_prompt_tokens_total": f'{{model="{MODEL}"}}',
    "tidemill_completion_tokens_total": f'{{model="{MODEL}"}}',
    "tidemill_generation_seconds_count": f'{{model="{MODEL}"}}',
    "tidemill_requests_total": f'{{method="{METHOD}",code="OK"}}',
}


def test_the_counters_of_each_process_grew_by_what_it_did_through_a_restart(scene: Scene) -> None:
    for name, process in scene.processes.items():
        for metric, selector in SELECTORS.items():
            (samples,) = scene.prometheus.samples(metric + selector.replace("}", f',instance="{name}"}}')).values()
            assert samples[0][1] == 0, metric
            assert grown(samples) == process.truth[metric], (name, metric)


def test_a_restart_is_one_reset_of_the_process_that_was_restarted(scene: Scene) -> None:
    for metric, selector in SELECTORS.items():
        resets = scene.prometheus.query(f"sum by (instance) (resets({metric}{selector}[1h]))")
        assert {dict(labels)["instance"]: value for labels, value in resets.items()} == {"a": 0, "b": 1}


def test_increase_is_what_was_done_but_for_its_extrapolation_of_one_scrape(scene: Scene) -> None:
    for name, process in scene.processes.items():
        for metric, selector in SELECTORS.items():
            series = metric + selector.replace("}", f',instance="{name}"}}')
            (samples,) = scene.prometheus.samples(series).values()
            (increase,) = scene.prometheus.query(f"increase({series}[1h])").values()
            truth = process.truth[metric]
            assert truth <= increase + 1e-6 <= truth * (1 + 1.1 / (len(samples) - 1)) + 1e-3, (name, metric)


def test_refusals_are_counted_by_their_reason(scene: Scene) -> None:
    refused = scene.prometheus.query(f'tidemill_requests_total{{method="{METHOD}",code!="OK"}}')
    found = {(dict(labels)["instance"], dict(labels)["reason"]): value for labels, value in refused.items()}
    assert found == {("a", "MODEL_NOT_FOUND"): scene.num_refused}


def test_both_processes_show_the_same_open_sessions(scene: Scene) -> None:
    selector = f'tidemill_open_sessions{{model="{MODEL}",state="ACTIVE"}}'
    shown = scene.prometheus.query(selector)
    assert {dict(labels)["instance"]: value for labels, value in shown.items()} == {"a": 2, "b": 2}
    (number,) = scene.prometheus.query(f"max({selector})").values()
    assert number == 2


def test_promtool_finds_nothing_to_say_of_the_page(scene: Scene) -> None:
    page = read_page(scene.processes["a"].front.targets[0])
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
