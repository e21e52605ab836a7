"""From models to their messages."""

from tidemill.v1 import model_pb2
from tidemill_models.manifest import Manifest
from tidemill_services.api.convert import duration, timestamp
from tidemill_services.domain.model import ModelState, ModelView, StartPhase
from tidemill_services.domain.price import Price

MODEL_STATES = {
    ModelState.STOPPED: model_pb2.Model.STATE_STOPPED,
    ModelState.QUEUED: model_pb2.Model.STATE_QUEUED,
    ModelState.STARTING: model_pb2.Model.STATE_STARTING,
    ModelState.READY: model_pb2.Model.STATE_READY,
    ModelState.DRAINING: model_pb2.Model.STATE_DRAINING,
    ModelState.FAILED: model_pb2.Model.STATE_FAILED,
}
START_PHASES = {
    None: model_pb2.Model.PHASE_UNSPECIFIED,
    StartPhase.LAUNCHING: model_pb2.Model.PHASE_LAUNCHING,
    StartPhase.LOADING: model_pb2.Model.PHASE_LOADING,
    StartPhase.WARMING: model_pb2.Model.PHASE_WARMING,
}


def model_message(view: ModelView, price: Price) -> model_pb2.Model:
    """A model as a caller may see it, with what it costs that caller."""
    manifest = Manifest.from_json(view.record.manifest_json)
    return model_pb2.Model(
        name=f"models/{view.name}",
        description=manifest.description,
        engine=manifest.engine,
        digest=view.record.digest,
        context_length=manifest.decoder.context_length if manifest.decoder else 0,
        state=MODEL_STATES[view.state],
        phase=START_PHASES[view.phase],
        progress=view.progress,
        time_to_ready=duration(None if view.time_to_ready_ms is None else view.time_to_ready_ms / 1000),
        failure=view.failure,
        retry_time=timestamp(view.retry_ms),
        ready_replicas=view.ready_replicas,
        open_sessions=view.open_sessions,
        demand=view.demand,
        prices=model_pb2.ModelPrices(
            session_microcredits_per_second=price.session_microcredits_per_second,
            input_microcredits_per_million_tokens=price.input_microcredits_per_million_tokens,
            output_microcredits_per_million_tokens=price.output_microcredits_per_million_tokens,
        ),
        chat_templates=_template_names(manifest),
        roles=manifest.chat.roles if manifest.chat else (),
    )


def _template_names(manifest: Manifest) -> list[str]:
    """The default first, then the others by name."""
    chat = manifest.chat
    return sorted(chat.templates, key=lambda name: (name != chat.template, name)) if chat else []
