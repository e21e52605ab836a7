"""A package's bytes are read while its model is loaded already; what is wrong in them still never answers."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill_models import digests
from tidemill_models.errors import ModelPackageError
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices import original_graph, ort_session
from tidemill_serving.engine import Engine, Phase, Step
from tidemill_serving.package_engine import engine_for
from tidemill_serving.settings import ReplicaSettings
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_cache.settings import StartCacheSettings
from tidemill_serving.start_times import StartTimes

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
GUARD_SECONDS = 120.0


class Start:
    """An engine that is started, and how that ends."""

    def __init__(self, package: Path, cache: StartCache | None = None) -> None:
        self.is_over = threading.Event()
        self.phases: list[Phase] = []
        self.detail = ""
        settings = ReplicaSettings(package, "0" * 64, slots=2, threads=1, kernels="stock")
        self.engine: Engine = engine_for(settings, StartTimes(), cache)
        self.engine.start(self)

    def on_phase(self, phase: Phase, _progress: float, detail: str) -> None:
        self.phases.append(phase)
        self.detail = detail
        if phase in (Phase.READY, Phase.FAILED):
            self.is_over.set()

    def on_step(self, _step: Step) -> None:
        pass

    def ended_in(self) -> Phase:
        """The last phase, once it is over."""
        assert self.is_over.wait(GUARD_SECONDS)
        self.engine.close()
        return self.phases[-1]


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The graphs that ONNX Runtime was handed."""
    handed: list[Path] = []
    make = ort_session._session

    def noted(graph: Any, options: Any, source: Path, weights: Any) -> Any:
        handed.append(source)
        return make(graph, options, source, weights)

    monkeypatch.setattr(ort_session, "_session", noted)
    return handed


@pytest.fixture
def may_hash(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Files are hashed once it is set."""
    may, sha256 = threading.Event(), digests._mapped_sha256

    def late(path: Path) -> str:
        assert may.wait(GUARD_SECONDS)
        return sha256(path)

    monkeypatch.setattr(digests, "_mapped_sha256", late)
    yield may
    may.set()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """One whose files may be changed."""
    return Path(shutil.copytree(TINY_LLAMA, tmp_path / "package"))


def change(file: Path) -> None:
    """Its last byte; the size stays."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_graph_is_read_while_bytes_are_hashed_and_handed_on_only_after_it(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Path], may_hash: threading.Event
) -> None:
    is_read, read = threading.Event(), original_graph.read_original

    def noted(*given: Any) -> Any:
        original = read(*given)
        is_read.set()
        return original

    monkeypatch.setattr(original_graph, "read_original", noted)
    start = Start(TINY_LLAMA)
    assert is_read.wait(GUARD_SECONDS)
    assert sessions == []
    assert Phase.READY not in start.phases
    may_hash.set()
    assert start.ended_in() is Phase.READY
    assert len(sessions) == 1


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_what_was_changed_is_never_handed_to_the_runtime(package: Path, name: str, sessions: list[Path]) -> None:
    change(package / name)
    start = Start(package)
    assert start.ended_in() is Phase.FAILED
    assert f"{name}: was changed" in start.detail
    assert sessions == []


def test_a_graph_that_cannot_be_read_because_it_was_changed_is_said_to_be_changed(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(package / "model.onnx")

    def fail(*_given: Any) -> None:
        raise RuntimeError("whatever reading it leads to")

    monkeypatch.setattr(original_graph, "read_original", fail)
    start = Start(package)
    assert start.ended_in() is Phase.FAILED
    assert "model.onnx: was changed" in start.detail


def test_a_prepared_copy_answers_only_once_the_package_is_right(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_hash: threading.Event
) -> None:
    """The copy is of the package as it should be, and loaded without a look at the package's own graph."""
    monkeypatch.setattr(ort_session, "_open_prepared", lambda _graph, settings: _plain_session(package, settings))
    change(package / "model.onnx")
    cache = StartCache(StartCacheSettings(tmp_path / "cache", 1 << 30, min_package_bytes=0))
    opened = load_package(package)
    copy = cache.graph_copy(opened)
    assert copy is not None
    copy.folder.mkdir(parents=True)
    with copy.in_making() as draft:
        for name in ("graph.onnx", "weights.bin"):
            (draft.folder / draft.key / name).write_bytes(b"as it should be")
        draft.seal()
    start = Start(package, cache)
    while Phase.WARMING not in start.phases and not start.is_over.wait(0.01):
        pass
    assert not start.is_over.is_set()
    may_hash.set()
    assert start.ended_in() is Phase.FAILED
    assert "model.onnx: was changed" in start.detail
    assert not list((tmp_path / "cache" / "checked").glob("*"))


def _plain_session(package: Path, settings: ort_session.SessionSettings) -> Any:
    return ort_session._open_original(
        TINY_LLAMA / "model.onnx", settings, ort_session._options(settings), ort_session.NOTHING
    )


def test_what_was_begun_is_what_is_checked(package: Path) -> None:
    cache = StartCache(None)
    cache.begin(package)
    assert cache.check_package(package).manifest.name == "tiny-llama"
    cache.until_right()


def test_what_goes_wrong_in_what_was_begun_is_told_to_who_asks(package: Path) -> None:
    (package / "stranger").touch()
    cache = StartCache(None)
    cache.begin(package)
    with pytest.raises(ModelPackageError, match="is not named"):
        cache.check_package(package)
