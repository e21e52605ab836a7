import re
from collections.abc import Iterable

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.metrics_page import Series, read_page, series_of, value_of, values_of
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2, model_pb2, session_pb2
from tidemill_services.access import METHODS, PAGES
from tidemill_services.domain import errors
from tidemill_services.domain.generation import FinishReason
from tidemill_services.domain.ledger import EntryKind
from tidemill_services.domain.session import EndReason, SessionState
from tidemill_services.engine_client.types import StartStep

FLOOD = 25
OUTSIDE = {"/healthz", ""}  # routes that need no key, and what is no page


def test_what_callers_write_makes_no_series(server: ServerProcess, wire: Wire) -> None:
    wire.start()
    list(wire.generate())
    ask_nonsense(server, wire, range(1))
    wait_until(lambda: _open_calls(server) == 0, "the end of all calls")
    before = _not_of_models(series_of(read_page(server.admin)))
    ask_nonsense(server, wire, range(1, FLOOD))
    wait_until(lambda: _open_calls(server) == 0, "the end of all calls")
    found = series_of(read_page(server.admin))
    assert _not_of_models(found) == before
    listed = wire.models.ListModels(model_pb2.ListModelsRequest(), metadata=wire.metadata).models
    models = {model.name.removeprefix("models/") for model in listed}
    assert values_of(found, "model") <= models
    assert values_of(found, "method") <= set(METHODS)
    assert values_of(found, "route") <= set(PAGES) | OUTSIDE
    assert values_of(found, "code") <= {code.name for code in grpc.StatusCode}
    assert values_of(found, "reason") <= {"", "CLIENT_GONE", *_reasons(errors.TidemillError), *EndReason}
    assert values_of(found, "status") <= {str(status) for status in (0, *range(100, 600))}
    assert values_of(found, "finish_reason") == set(FinishReason)
    assert values_of(found, "state") == {SessionState.PENDING, SessionState.ACTIVE}
    assert values_of(found, "kind") == {"read", "write"}
    billing = series_of(read_page(server.admin, "/metrics/billing"))
    accounts = wire.accounts.ListAccounts(
        account_pb2.ListAccountsRequest(page_size=1_000), metadata=wire.metadata
    ).accounts
    assert values_of(billing, "account") <= {account.name.removeprefix("accounts/") for account in accounts}
    assert values_of(billing, "model") <= models
    assert values_of(billing, "kind") <= set(EntryKind)
    assert values_of(found, "step") == {*StartStep, "launch", "connect", "total"}
    assert values_of(found, "phase") == {"decode", "prefill"}
    known = {"model", "method", "route", "code", "reason", "status", "finish_reason", "state", "kind", "step", "phase"}
    known.add("le")
    assert {name for series in found for name, _ in series.labels if series.name.startswith("tidemill_")} <= known | {
        "le"
    }


def ask_nonsense(server: ServerProcess, wire: Wire, numbers: Iterable[int]) -> None:
    """Calls that are refused, each naming what nobody has named before."""
    headers = {"authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=f"http://{server.http}", headers=headers, timeout=60) as http:
        for number in numbers:
            for ask in (
                lambda number=number: list(wire.generate(model=f"none-{number}")),
                lambda number=number: wire.start(model=f"none-{number}", holder=f"holder-{number}"),
                lambda number=number: wire.stop(name=f"sessions/{number:032x}"),
                lambda number=number: _call_unknown_method(wire, number),
            ):
                with pytest.raises(grpc.RpcError):
                    ask()
            with wire_to(server, f"tm_{number}") as stranger, pytest.raises(grpc.RpcError):
                stranger.start()
            assert http.get(f"/none/{number}").status_code == 404
            assert http.get(f"/v1/models/none-{number}").status_code == 404
            assert http.request(f"ODD{number}", "/v1/models").status_code == 405
            body = {"model": f"none-{number}", "prompt": "once", f"odd_{number}": 1}
            assert http.post("/v1/completions", json=body).status_code in (400, 404)


def _call_unknown_method(wire: Wire, number: int) -> None:
    wire.channel.unary_unary(f"/tidemill.v1.InferenceService/Method{number}")(b"", metadata=wire.metadata, timeout=60)


def _not_of_models(found: dict[Series, float]) -> set[Series]:
    """All but those that a model has, which may have woken for another test."""
    return {series for series in found if {name for name, _ in series.labels} != {"model"}}


def _reasons(kind: type[errors.TidemillError]) -> set[str]:
    own = {kind.reason} if hasattr(kind, "reason") else set()
    return own.union(*(_reasons(sub) for sub in kind.__subclasses__()))


def _open_calls(server: ServerProcess) -> float:
    found = series_of(read_page(server.admin))
    return sum(value for series, value in found.items() if re.match("tidemill_open_(calls|http)", series.name))


def test_a_generations_tokens_and_times_are_counted_by_model(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    list(slow_wire.generate())  # the model is awake
    before = series_of(read_page(slow_server.admin))
    prompt_tokens = completion_tokens = 0
    for _ in range(3):
        usage = list(slow_wire.generate(max_tokens=60))[-1].end.usage
        prompt_tokens += usage.prompt_tokens
        completion_tokens += usage.completion_tokens
    after = series_of(read_page(slow_server.admin))

    def grown(name: str, **labels: str) -> float:
        return value_of(after, name, model=MODEL, **labels) - value_of(before, name, model=MODEL, **labels)

    assert grown("tidemill_prompt_tokens_total") == prompt_tokens
    assert grown("tidemill_completion_tokens_total") == completion_tokens
    assert sum(grown("tidemill_generations_total", finish_reason=reason) for reason in FinishReason) == 3
    for histogram in ("queue", "time_to_first_token", "generation"):
        assert grown(f"tidemill_{histogram}_seconds_count") == 3
        assert grown(f"tidemill_{histogram}_seconds_bucket", le="+Inf") == 3
    # All tokens but those of each generation's first message, of which there is one at least.
    assert 0 < grown("tidemill_inter_token_seconds_count") <= completion_tokens - 3
    assert grown("tidemill_inter_token_seconds_sum") < grown("tidemill_generation_seconds_sum")


def test_what_the_engines_do_is_shown_by_model_and_phase(server: ServerProcess, wire: Wire) -> None:
    def shown(name: str, **labels: str) -> float:
        return value_of(series_of(read_page(server.admin)), f"tidemill_engine_{name}", model=MODEL, **labels)

    wire.start()
    before = shown("run_tokens_total", phase="decode")
    num_tokens = list(wire.generate("a prompt for the engine's own counters", max_tokens=8))[
        -1
    ].end.usage.completion_tokens
    wait_until(lambda: shown("run_tokens_total", phase="decode") >= before + num_tokens - 1, "the engine's next word")
    assert shown("run_tokens_total", phase="prefill") > 0
    for phase in ("decode", "prefill"):
        assert shown("runs_total", phase=phase) <= shown("run_tokens_total", phase=phase)
        assert shown("run_seconds_total", phase=phase) > 0
    assert shown("budget_tokens") > 0
    assert shown("resident_bytes") > 1e6
    assert shown("preemptions_total") == 0
    wait_until(lambda: shown("held_tokens") == 0, "an engine that holds nothing")


def test_sessions_are_counted_as_they_start_and_stop_by_why(server: ServerProcess, neighbour: Wire) -> None:
    def counted(name: str, **labels: str) -> float:
        return value_of(series_of(read_page(server.admin)), f"tidemill_sessions_{name}_total", model=MODEL, **labels)

    num_started, num_stopped = counted("started"), counted("stopped", reason="STOPPED")
    num_ended = counted("stopped", reason="MAX_DURATION")
    neighbour.start(holder="one")
    neighbour.start(holder="two")  # joins
    neighbour.stop()
    neighbour.stop()  # again
    limits = session_pb2.SessionLimits(max_duration=Duration(seconds=1))
    neighbour.start(limits=limits)
    wait_until(lambda: counted("stopped", reason="MAX_DURATION") == num_ended + 1, "the session's longest duration")
    assert counted("started") == num_started + 2
    assert counted("stopped", reason="STOPPED") == num_stopped + 1


def test_open_sessions_are_shown_by_model_and_state(server: ServerProcess, neighbour: Wire) -> None:
    def num_open() -> float:
        return value_of(series_of(read_page(server.admin)), "tidemill_open_sessions", model=MODEL, state="ACTIVE")

    neighbour.start()
    list(neighbour.generate())
    num_before = num_open()
    neighbour.stop()
    assert num_open() == num_before - 1
