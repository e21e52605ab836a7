"""The engine of a model package: checks the package, then becomes the engine that its manifest names."""

import importlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill_models.errors import ModelPackageError
from tidemill_models.package import ModelPackage
from tidemill_ports.garbage import not_looked_for
from tidemill_serving.decoder.pieces_in_reading import PiecesInReading
from tidemill_serving.engine import (
    Engine,
    EngineListener,
    EngineStats,
    EngineStoppedError,
    GenerationRequest,
    Load,
    Phase,
)
from tidemill_serving.native import KernelsChoice
from tidemill_serving.settings import ReplicaSettings
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_cache.prepared import PreparedGraph
from tidemill_serving.start_times import StartStep, StartTimes, StartWatch
from tidemill_telemetry.logs import name_process

if TYPE_CHECKING:
    from tidemill_serving.decoder.devices.cpu import CpuDevice
    from tidemill_serving.decoder.devices.device import Device
    from tidemill_serving.decoder.devices.ort_session import Meanwhile
    from tidemill_serving.decoder.settings import DecoderSettings

_log = logging.getLogger(__name__)
_NOTHING_LOADED = Load(num_running=0, num_waiting=0, num_slots=0, num_free_tokens=0)


class PackageEngine:
    """See `Engine`. Reads nothing before `start`, so that the port can be open while a large package is read."""

    def __init__(
        self,
        folder: Path,
        build: Callable[[ModelPackage], Engine],
        times: StartTimes | None = None,
        cache: StartCache | None = None,
        imports: Callable[[], None] | None = None,
    ) -> None:
        """`imports` are what `build` will need: they are done while the package is read."""
        self._folder = folder
        self._imports = imports
        self._build = build
        self._times = times or StartTimes()
        self._cache = cache or StartCache(None)
        self._lock = threading.Lock()  # of the two below: who closes meets who builds
        self._engine: Engine | None = None
        self._is_closed = False

    def start(self, listener: EngineListener) -> None:
        """Check the package in a thread, then start its engine; what is wrong with it ends in FAILED."""
        threading.Thread(target=self._open, args=(listener,), name="tidemill-package", daemon=True).start()

    def submit(self, request: GenerationRequest) -> None:
        """Take a generation in, once there is an engine."""
        if self._engine is None:
            raise EngineStoppedError("the package is still being read")
        self._engine.submit(request)

    def abort(self, sequence_id: int) -> None:
        """End a generation."""
        if self._engine is not None:
            self._engine.abort(sequence_id)

    def load(self) -> Load:
        """How busy the engine is; without one there are no slots."""
        return _NOTHING_LOADED if self._engine is None else self._engine.load()

    def stats(self) -> EngineStats:
        """What the engine has done."""
        return EngineStats() if self._engine is None else self._engine.stats()

    def is_responsive(self) -> bool:
        """Whether the engine lives; reading a package takes what the disk takes."""
        return self._engine is None or self._engine.is_responsive()

    def last_life(self) -> float:
        """When the engine showed life last; while there is none, it does now."""
        return time.monotonic() if self._engine is None else self._engine.last_life()

    def close(self) -> None:
        """Close the engine, or see to it that none is started any more."""
        with self._lock:
            self._is_closed = True
        if self._engine is not None:
            self._engine.close()

    def _open(self, listener: EngineListener) -> None:
        listener.on_phase(Phase.LOADING, 0.0, "The package is checked.")
        if self._imports is not None:
            threading.Thread(target=self._imports, name="tidemill-imports", daemon=True).start()
        try:
            self._times.enter(StartStep.PACKAGE)
            package = self._cache.check_package(self._folder)
            name_process(model=package.manifest.name)
            self._times.enter(StartStep.ENGINE)
            engine = self._build(package)
        except ModelPackageError as error:
            listener.on_phase(Phase.FAILED, 0.0, f"The model package cannot be served: {error}")
            return
        except Exception as error:  # noqa: BLE001 -- whatever it is, the launcher must hear of it
            _log.exception("the package cannot be opened")
            listener.on_phase(Phase.FAILED, 0.0, f"The replica cannot start: {type(error).__name__}: {error}")
            return
        with self._lock:
            if not self._is_closed:
                self._engine = engine
                engine.start(StartWatch(listener, self._times, self._cache.prepare))


# The imports below wait for their use: they take longer than all else that happens before the port is open.


def engine_for(settings: ReplicaSettings, times: StartTimes, cache: StartCache | None = None) -> Engine:
    """The engine that `settings` ask for, not started yet; `cache` may have begun to open its package."""
    cache = cache or StartCache.of(settings)
    imports = _import_decoder if settings.device == "cpu" else None
    build = partial(_decoder_engine, settings=settings, cache=cache)
    return PackageEngine(settings.package, build, times, cache, imports)


def _import_decoder() -> None:
    """What fails here fails again, and is told, where it is needed."""
    with suppress(Exception), not_looked_for():
        importlib.import_module("tidemill_serving.decoder.engine")
        importlib.import_module("tidemill_serving.decoder.devices.cpu")
        importlib.import_module("numpy.random")  # numpy does so at its first use, which is the first answer by chance


def _decoder_engine(package: ModelPackage, settings: ReplicaSettings, cache: StartCache) -> Engine:
    pieces = PiecesInReading(package, cache.token_pieces, cache.keep)
    from tidemill_serving.decoder.engine import DecoderEngine  # noqa: PLC0415
    from tidemill_serving.decoder.model import DecoderModel  # noqa: PLC0415
    from tidemill_serving.decoder.settings import DecoderSettings  # noqa: PLC0415

    decoder = DecoderSettings(
        num_slots=settings.slots or package.manifest.scaling.slots,
        num_threads=settings.threads or 0,
        token_budget=package.decoder.cache_tokens,
    )
    model = DecoderModel.from_package(package, pieces)
    return DecoderEngine(model, _device(package, settings, decoder, cache, pieces), decoder)


def _device(
    package: ModelPackage,
    settings: ReplicaSettings,
    decoder: "DecoderSettings",
    cache: StartCache,
    pieces: PiecesInReading,
) -> "Device":
    if settings.device == "fake":
        from tidemill_serving.decoder.devices.fake import FakeDevice  # noqa: PLC0415

        return FakeDevice(vocab_size=pieces.vocabulary_size(), tick=timedelta(milliseconds=settings.fake_tick_ms))
    if settings.device == "cuda":
        if package.decoder.cache == "grows":
            raise ModelPackageError("the graph grows its cache, which only `--device cpu` runs", key="decoder.cache")
        from tidemill_serving.decoder.devices.cuda import CudaDevice  # noqa: PLC0415

        pieces.begin()
        cache.until_right()
        return CudaDevice()
    from tidemill_serving.decoder.devices.ort_session import Meanwhile  # noqa: PLC0415

    meanwhile = Meanwhile(until_right=cache.until_right, python_is_free=pieces.begin)
    return cpu_device(package, decoder, cache.graph_copy(package), settings.kernels, meanwhile)


def cpu_device(
    package: ModelPackage,
    decoder: "DecoderSettings",
    copy: PreparedGraph | None = None,
    kernels: KernelsChoice = "auto",
    meanwhile: "Meanwhile | None" = None,
) -> "CpuDevice":
    """The device on the processor that runs this package's kind of graph, not loaded yet."""
    from tidemill_serving.decoder.devices.cpu import CpuDevice  # noqa: PLC0415
    from tidemill_serving.decoder.devices.ort_session import NOTHING  # noqa: PLC0415

    kind = CpuDevice
    if package.decoder.cache == "grows":
        from tidemill_serving.decoder.devices.growing import GrowingCacheDevice  # noqa: PLC0415 -- few need it

        kind = GrowingCacheDevice
    threads, spins = decoder.threads(), decoder.spinning
    return kind(num_threads=threads, spinning=spins, copy=copy, kernels=kernels, meanwhile=meanwhile or NOTHING)
