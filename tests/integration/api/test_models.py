import time
from pathlib import Path

import grpc
import pytest

from tests.integration.api.conftest import MODEL, Wire, text_of, wait_until, wire_to
from tests.server_process import server_process
from tidemill.v1 import model_pb2


def _stop(wire: Wire, *, force: bool = False) -> model_pb2.Model:
    return wire.models.StopModel(model_pb2.StopModelRequest(name=MODEL, force=force), metadata=wire.metadata)


def _at_rest(wire: Wire) -> None:
    _stop(wire, force=True)
    wait_until(lambda: wire.model().state == model_pb2.Model.STATE_STOPPED, "STOPPED")


def test_models_are_listed_by_name_with_what_they_cost(wire: Wire) -> None:
    listed = wire.models.ListModels(model_pb2.ListModelsRequest(), metadata=wire.metadata).models
    names = [model.name for model in listed]
    assert names == sorted(names)
    assert f"models/{MODEL}" in names
    assert all(len(model.digest) == 64 and model.context_length > 0 for model in listed)
    assert all(model.prices.session_microcredits_per_second > 0 for model in listed)


def test_models_are_listed_page_by_page(wire: Wire) -> None:
    whole = wire.models.ListModels(model_pb2.ListModelsRequest(), metadata=wire.metadata).models
    paged: list[str] = []
    token = ""
    for _ in whole:
        request = model_pb2.ListModelsRequest(page_size=1, page_token=token)
        page = wire.models.ListModels(request, metadata=wire.metadata)
        paged += [model.name for model in page.models]
        token = page.next_page_token
    assert token == ""
    assert paged == [model.name for model in whole]


def test_a_model_starts_shows_its_phases_and_rests_again(wire: Wire) -> None:
    _at_rest(wire)
    watch = wire.models.WatchModel(model_pb2.WatchModelRequest(name=MODEL), metadata=wire.metadata, timeout=60)
    assert next(watch).model.state == model_pb2.Model.STATE_STOPPED
    wire.models.StartModel(model_pb2.StartModelRequest(name=MODEL), metadata=wire.metadata)
    seen: list[model_pb2.Model] = []
    for response in watch:
        seen.append(response.model)
        if response.model.state == model_pb2.Model.STATE_READY:
            break
    watch.cancel()
    assert seen[-1].ready_replicas == 1
    assert any(model.state == model_pb2.Model.STATE_STARTING for model in seen)
    progress = [model.progress for model in seen if model.state == model_pb2.Model.STATE_STARTING]
    assert progress == sorted(progress)
    _stop(wire)
    wait_until(lambda: wire.model().state == model_pb2.Model.STATE_STOPPED, "STOPPED")
    assert wire.model().ready_replicas == 0


def test_a_generation_wakes_a_resting_model_and_its_wait_is_shown(wire: Wire) -> None:
    _at_rest(wire)
    wire.start()
    responses = list(wire.generate())
    assert responses[-1].HasField("end")
    assert responses[-1].end.usage.queue_duration.ToTimedelta().total_seconds() > 0


def test_a_generation_that_waits_hears_each_second_what_it_waits_for(tmp_path: Path) -> None:
    one_replica = ("--replica-capacity", "1", "--replica-device", "fake")
    with server_process(tmp_path, *one_replica) as server, wire_to(server) as wire:
        other = model_pb2.GetModelRequest(name="tide-nano")
        wire.start(model="tide-nano")
        wait_until(
            lambda: wire.models.GetModel(other, metadata=wire.metadata).state == model_pb2.Model.STATE_READY, "READY"
        )
        wire.start()
        began = time.monotonic()
        responses = wire.generate(max_tokens=4)
        heard = [next(responses) for _ in range(3)]
        assert time.monotonic() - began > 1.9  # the first of them comes at once
        assert [response.sequence_number for response in heard] == [0, 0, 0]
        assert all(response.keep_alive.model_state == model_pb2.Model.STATE_QUEUED for response in heard)
        assert all(response.keep_alive.queue_position == 0 for response in heard)
        wire.models.StopModel(model_pb2.StopModelRequest(name="tide-nano", force=True), metadata=wire.metadata)
        rest = list(responses)
    counted = [response.sequence_number for response in rest if not response.HasField("keep_alive")]
    assert counted == list(range(1, len(counted) + 1))
    assert text_of(rest)
    assert rest[-1].end.usage.queue_duration.ToTimedelta().total_seconds() > 2


def test_a_model_with_an_open_session_is_stopped_only_by_force(wire: Wire) -> None:
    name = wire.start().session.name
    with pytest.raises(grpc.RpcError) as refused:
        _stop(wire)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "1 open session" in (refused.value.details() or "")
    _stop(wire, force=True)
    stopped = wire.stop(name=name, model="")
    assert stopped.already_ended
    assert stopped.session.bill.final
