"""Models: list, look, wake, put to rest, watch."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tidemill import methods
from tidemill.errors import ModelColdError, ModelFailedError
from tidemill.results import Model, Progress, model_of, progress_of_model
from tidemill.steps import Deadline, Emit, Line, Plan, Read, build, opened, request_id, unary
from tidemill.v1 import model_pb2

OnProgress = Callable[[Progress], object]
"""Called with each change of a wait; what it returns is ignored."""


def list_all(*, deadline: Deadline) -> Plan[list[Model]]:
    """Fetch the registered models by name, page by page."""
    found: list[Model] = []
    token = ""
    while True:
        page = yield from unary(methods.LIST_MODELS, build(model_pb2.ListModelsRequest, page_token=token), deadline)
        found += (model_of(message) for message in page.models)
        token = page.next_page_token
        if not token:
            return found


def get(name: str, *, deadline: Deadline) -> Plan[Model]:
    """Fetch one model."""
    message = yield from unary(methods.GET_MODEL, build(model_pb2.GetModelRequest, name=name), deadline)
    return model_of(message)


def is_running(name: str, *, deadline: Deadline) -> Plan[bool]:
    """Ask whether at least one replica answers now."""
    model = yield from get(name, deadline=deadline)
    return model.is_running


def start(name: str, *, deadline: Deadline) -> Plan[Model]:
    """Wake a model."""
    request = build(model_pb2.StartModelRequest, name=name, request_id=request_id())
    message = yield from unary(methods.START_MODEL, request, deadline)
    return model_of(message)


def start_and_wait(name: str, *, on_progress: OnProgress | None, deadline: Deadline) -> Plan[Model]:
    """Wake a model and wait until it runs."""
    model = yield from start(name, deadline=deadline)
    if model.is_running:
        return model
    return (yield from wait_until_running(model.name, on_progress=on_progress, deadline=deadline))


def stop(name: str, *, force: bool, deadline: Deadline) -> Plan[Model]:
    """Put a model to rest."""
    request = build(model_pb2.StopModelRequest, name=name, request_id=request_id(), force=force)
    message = yield from unary(methods.STOP_MODEL, request, deadline)
    return model_of(message)


def watch(name: str, line: Line, *, deadline: Deadline) -> Plan[None]:
    """Emit the model now and at each change, until the line is closed."""
    request = build(model_pb2.WatchModelRequest, name=name)
    call, message = yield from opened(methods.WATCH_MODEL, request, deadline, line)
    try:
        while message is not None:
            yield Emit(model_of(message.model))
            message = yield Read(call)
    finally:
        call.cancel()


def wait_until_running(name: str, *, on_progress: OnProgress | None, deadline: Deadline) -> Plan[Model]:
    """Watch a model until it runs; wake it when it rests, since else nothing might."""
    model = yield from _watch_until_settled(name, on_progress, deadline, is_woken=False)
    if model.state == "stopped":
        yield from start(name, deadline=deadline)
        model = yield from _watch_until_settled(name, on_progress, deadline, is_woken=True)
    if model.state == "failed":
        raise _failed(model)
    return model


def _watch_until_settled(
    name: str, on_progress: OnProgress | None, deadline: Deadline, *, is_woken: bool
) -> Plan[Model]:
    """The model once it runs or failed, or when it rests and nothing was asked to wake it."""
    request = build(model_pb2.WatchModelRequest, name=name)
    call, message = yield from opened(methods.WATCH_MODEL, request, deadline)
    was_waking = False
    try:
        while message is not None:
            model = model_of(message.model)
            if on_progress is not None:
                on_progress(progress_of_model(model))
            if model.state == "stopped" and was_waking:
                raise ModelColdError(f"{model.name} was stopped while it was waking.")
            if model.state in {"ready", "failed"} or (model.state == "stopped" and not is_woken):
                return model
            was_waking = was_waking or model.state in {"queued", "starting"}
            message = yield Read(call)
    finally:
        call.cancel()
    raise ModelColdError(f"The watch of {name or 'the model'} ended before it was running.")


def _failed(model: Model) -> ModelFailedError:
    retry_after = None
    if model.retry_time is not None:
        retry_after = max(timedelta(0), model.retry_time - datetime.now(UTC))
    return ModelFailedError(
        f"{model.name} failed to start: {model.failure or 'no reason was given'}", retry_after=retry_after
    )
