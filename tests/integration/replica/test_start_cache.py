"""What replicas leave for the next start, and what becomes of it when it is damaged, gone, or cannot be kept."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.integration.replica.replica_process import replica_process, until_ready
from tests.unit.models.packages import write_manifest
from tidemill_models.errors import ModelPackageError
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.ort_session import runtime_name
from tidemill_serving.engine import Phase, Step
from tidemill_serving.package_engine import engine_for
from tidemill_serving.settings import ReplicaSettings
from tidemill_serving.start_cache import checked as checked_module
from tidemill_serving.start_cache import file_identity
from tidemill_serving.start_cache import kept_pieces as kept_pieces_module
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_cache.file_identity import identity_of, is_settled
from tidemill_serving.start_cache.prepared import GRAPH, MADE, WEIGHTS, PreparedGraph, PreparedGraphs
from tidemill_serving.start_cache.settings import StartCacheSettings
from tidemill_serving.start_times import StartStep, StartTimes

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
GIBIBYTE = 1 << 30


def make(folder: Path, digest: str = "a", *, max_bytes: int = GIBIBYTE, graph: Path | None = None) -> PreparedGraph:
    """Run the maker for tiny-llama's graph; the copy may not be made in the end."""
    package = load_package(TINY_LLAMA)
    command = [sys.executable, "-m", "tidemill_serving.start_cache.prepare"]
    command += ["--graph", str(graph or package.graph_path), "--graph-bytes", "1000", "--digest", digest]
    subprocess.run([*command, "--folder", str(folder), "--max-bytes", str(max_bytes)], check=True, timeout=120)
    return PreparedGraphs(folder, max_bytes).of(digest, runtime_name())


def answer(copy: PreparedGraph | None) -> np.ndarray:
    """The logits of a prompt."""
    device = CpuDevice(num_threads=1, spinning=False, copy=copy)
    device.load(load_package(TINY_LLAMA).graph_path, num_slots=2, context_length=32, on_progress=lambda _: None)
    logits = device.extend(0, np.arange(9, dtype=np.int64), 0).copy()
    device.close()
    return logits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """A copy that no test changes."""
    copy = make(tmp_path_factory.mktemp("copies"))
    assert copy.is_made()
    return copy


@pytest.fixture
def copy(made: PreparedGraph, tmp_path: Path) -> PreparedGraph:
    """A copy of a test's own."""
    shutil.copytree(made.folder / made.key, tmp_path / made.key)
    own = PreparedGraph(tmp_path, made.key)
    own.seal()
    return own


def test_a_prepared_graph_answers_as_the_original_does(made: PreparedGraph) -> None:
    np.testing.assert_array_equal(answer(made), answer(None))
    assert not list(made.folder.glob("*.loading-*"))


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone"])
def test_a_damaged_copy_is_removed_and_the_original_answers(copy: PreparedGraph, name: str, damage: str) -> None:
    file = copy.folder / copy.key / name
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        time.sleep(0.02)  # beyond the tick in which it was made
        with file.open("r+b") as opened:
            opened.write(b"\xff" * 64)
    np.testing.assert_array_equal(answer(copy), answer(None))
    assert not (copy.folder / copy.key).exists()


@pytest.mark.parametrize("noted", [b"", b"{", b"[]", b"\xff"])
def test_a_copy_whose_note_is_damaged_is_removed(copy: PreparedGraph, noted: bytes) -> None:
    (copy.folder / copy.key / MADE).write_bytes(noted)
    assert not copy.is_made()
    assert not (copy.folder / copy.key).exists()


def test_a_copy_that_onnxruntime_refuses_is_removed_and_the_original_answers(copy: PreparedGraph) -> None:
    (copy.folder / copy.key / GRAPH).write_bytes(b"no graph")
    copy.seal()
    np.testing.assert_array_equal(answer(copy), answer(None))
    assert not (copy.folder / copy.key).exists()


def test_a_copy_that_ended_the_process_which_loaded_it_is_not_loaded_again(copy: PreparedGraph) -> None:
    (copy.folder / f"{copy.key}.loading-1").touch()  # nobody holds its lock any more
    np.testing.assert_array_equal(answer(copy), answer(None))
    assert not (copy.folder / copy.key).exists()
    assert not list(copy.folder.glob("*.loading-*"))


def test_a_copy_that_another_process_is_loading_is_loaded(copy: PreparedGraph) -> None:
    with (copy.folder / f"{copy.key}.loading-1").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        answer(copy)
        assert copy.is_made()


def test_a_copy_for_another_processor_runtime_or_package_is_another_one(made: PreparedGraph) -> None:
    graphs = PreparedGraphs(made.folder, GIBIBYTE)
    keys = {made.key, graphs.of("b", runtime_name()).key, graphs.of("a", "onnxruntime 0").key}
    assert len(keys) == 3


def test_many_makers_at_once_make_one_copy(tmp_path: Path) -> None:
    package = load_package(TINY_LLAMA)
    command = [sys.executable, "-m", "tidemill_serving.start_cache.prepare", "--graph", str(package.graph_path)]
    command += ["--graph-bytes", "1000", "--digest", "a", "--folder", str(tmp_path), "--max-bytes", str(GIBIBYTE)]
    makers = [subprocess.Popen(command) for _ in range(3)]
    assert [maker.wait(120) for maker in makers] == [0, 0, 0]
    copy = PreparedGraphs(tmp_path, GIBIBYTE).of("a", runtime_name())
    assert copy.is_made()
    assert {file.name for file in tmp_path.iterdir()} == {copy.key, "maker.lock"}


def test_what_a_killed_maker_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".making-x"
    left.mkdir()
    (left / WEIGHTS).write_bytes(b"half")
    assert make(tmp_path).is_made()
    assert not left.exists()


def test_the_least_used_copies_make_room(tmp_path: Path, copy: PreparedGraph) -> None:
    size = sum(file.stat().st_size for file in (copy.folder / copy.key).iterdir())
    folder = tmp_path / "many"
    for number, name in enumerate(("old", "used", "new")):
        shutil.copytree(copy.folder / copy.key, folder / name)
        PreparedGraph(folder, name).seal()
        os.utime(folder / name / MADE, (number, number))
    assert PreparedGraph(folder, "old").is_made()  # which is a use
    PreparedGraphs(folder, int(2.5 * size)).trim()
    assert {kept.name for kept in folder.iterdir()} == {"old", "new"}


def test_a_copy_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    assert not make(tmp_path, max_bytes=100).is_made()
    assert {file.name for file in tmp_path.iterdir()} == {"maker.lock"}


def test_a_graph_that_cannot_be_loaded_leaves_nothing(tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"no graph")
    assert not make(tmp_path / "copies", graph=graph).is_made()
    assert {file.name for file in (tmp_path / "copies").iterdir()} == {"maker.lock"}


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not make(tmp_path / "file" / "copies").is_made()
    cache = StartCache(StartCacheSettings(tmp_path / "file" / "cache", GIBIBYTE))
    assert cache.check_package(TINY_LLAMA).manifest.name == "tiny-llama"


def test_a_package_is_checked_once_until_a_file_of_it_is_touched(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(TINY_LLAMA, package)
    _make_older(package)
    cache = StartCache(StartCacheSettings(tmp_path / "cache", GIBIBYTE))
    opened = cache.check_package(package)
    assert not (tmp_path / "cache" / "checked").exists()  # its tokenizer is not checked yet
    cache.token_pieces(opened)
    cache.keep()
    assert len(list((tmp_path / "cache" / "checked").iterdir())) == 1
    graph = load_package(package).graph_path
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    stat = graph.stat()
    graph.write_bytes(content)
    os.utime(graph, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # whoever hides a change cannot hide this one
    with pytest.raises(ModelPackageError, match="was changed"):
        _check_all(cache, package)


def test_a_package_that_was_changed_just_now_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_identity, "SETTLED_SECONDS", 1e9)  # however long it takes to copy and to read it
    package = tmp_path / "package"
    shutil.copytree(TINY_LLAMA, package)
    assert checked_module.CheckedPackages(tmp_path / "checked").identify(load_package(package)) == ""
    assert not is_settled(identity_of(package / "model.toml"))


def test_a_tokenizer_is_read_once_and_again_when_what_was_kept_of_it_is_damaged(tmp_path: Path) -> None:
    package = load_package(TINY_LLAMA)
    cache = StartCache(StartCacheSettings(tmp_path, GIBIBYTE))
    pieces = cache.token_pieces(package)
    cache.keep()
    (kept,) = (tmp_path / "pieces").iterdir()
    content = kept.read_bytes()
    assert cache.token_pieces(replace(package, paths={})) == pieces  # no tokenizer is read
    kept.write_bytes(content[:-1] + b"?")
    assert cache.token_pieces(package) == pieces
    cache.keep()
    assert kept.read_bytes() == content


def test_a_package_whose_tokens_do_not_go_with_its_graph_is_never_noted_as_right(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    shutil.copytree(TINY_LLAMA, folder)
    told, _, _ = (folder / "model.toml").read_text().partition("[files]")
    write_manifest(folder, told.replace("bos_token_id = 1", "bos_token_id = 9000") + "[files]\n")
    _make_older(folder)
    for settings in (None, StartCacheSettings(tmp_path / "cache", GIBIBYTE)):
        cache = StartCache(settings)
        package = cache.check_package(folder)
        for _ in range(2):
            with pytest.raises(ModelPackageError, match="the tokenizer does not have"):
                cache.token_pieces(package)
        cache.keep()
    assert not (tmp_path / "cache").exists()


def test_where_nothing_can_be_kept_a_tokenizer_is_read_at_each_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    package = load_package(TINY_LLAMA)
    for settings in (None, StartCacheSettings(tmp_path / "file" / "cache", GIBIBYTE)):
        cache = StartCache(settings)
        assert cache.token_pieces(package).pieces
        cache.keep()


def test_the_least_used_pieces_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_pieces_module, "_MAX_FILES", 2)
    cache, package = StartCache(StartCacheSettings(tmp_path, GIBIBYTE)), load_package(TINY_LLAMA)
    folder = tmp_path / "pieces"
    folder.mkdir()
    for seconds, name in enumerate(("old", "used")):
        (folder / name).touch()
        os.utime(folder / name, (seconds, seconds))
    cache.token_pieces(package)
    cache.keep()
    assert len(list(folder.iterdir())) == 2
    assert not (folder / "old").exists()


class Listener:
    """Waits until an engine is ready."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.phase = Phase.LOADING

    def on_phase(self, phase: Phase, _progress: float, _detail: str) -> None:
        self.phase = phase
        if phase in (Phase.READY, Phase.FAILED):
            self.is_over.set()

    def on_step(self, _step: Step) -> None:
        pass


def test_an_engine_that_is_ready_has_a_copy_made_and_the_next_one_starts_from_it(tmp_path: Path) -> None:
    cache = StartCacheSettings(tmp_path, GIBIBYTE, min_package_bytes=0, prepare_after_seconds=0.0)
    copy = PreparedGraphs(tmp_path / "prepared", GIBIBYTE).of(load_package(TINY_LLAMA).digest, runtime_name())
    for _ in range(2):
        listener, times = Listener(), StartTimes()
        engine = engine_for(ReplicaSettings(TINY_LLAMA, "0" * 64, slots=2, threads=1, start_cache=cache), times)
        engine.start(listener)
        assert listener.is_over.wait(60)
        assert listener.phase is Phase.READY
        assert set(times.seconds()) == {StartStep.PACKAGE, StartStep.ENGINE, StartStep.GRAPH, StartStep.WARM}
        deadline = time.monotonic() + 120
        while not copy.is_made() and time.monotonic() < deadline:
            time.sleep(0.05)
        engine.close()
    assert copy.is_made()


async def test_a_replica_tells_how_long_each_step_of_its_start_took() -> None:
    async with replica_process() as replica, replica.client() as client:
        status = await until_ready(client)
    assert [step.value for step, _ in status.start_steps] == [
        "process", "listen", "package", "engine", "graph", "warm",
    ]  # fmt: skip
    assert all(seconds >= 0 for _, seconds in status.start_steps)


def _check_all(cache: StartCache, package: Path) -> None:
    cache.check_package(package)
    cache.until_right()


def _make_older(package: Path) -> None:
    """Wait until its files are settled: the time of their last change cannot be set."""
    while not all(is_settled(identity_of(file)) for file in package.iterdir()):
        time.sleep(0.1)
