"""What a replica takes from the cache at its start, and what it leaves there for the next one."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill_models.digests import DigestsInReading, refuse_unnamed_files
from tidemill_models.package import ModelPackage, load_package
from tidemill_models.token_pieces import TokenPieces, read_pieces
from tidemill_serving.freed_memory import give_back
from tidemill_serving.native import KernelsChoice
from tidemill_serving.start_cache.checked import CheckedPackages
from tidemill_serving.start_cache.kept_pieces import KeptPieces
from tidemill_serving.start_cache.prepared import PreparedGraph, PreparedGraphs
from tidemill_serving.start_cache.settings import StartCacheSettings

if TYPE_CHECKING:
    from tidemill_models.graph import GraphSignature
    from tidemill_serving.settings import ReplicaSettings

_log = logging.getLogger(__name__)


class StartCache:
    """The cache of one replica; without settings it holds nothing and takes nothing."""

    def __init__(
        self, settings: StartCacheSettings | None, *, log_format: str = "text", kernels: KernelsChoice = "auto"
    ) -> None:
        self._settings = settings
        self._kernels = kernels
        self._log_format = log_format
        self._maker: list[str] = []  # its command line; empty where no copy is wanted
        self._opened: Future[tuple[ModelPackage, DigestsInReading | None]] | None = None  # what was begun
        self._digests: DigestsInReading | None = None  # of a package that was not checked before
        self._unchecked: GraphSignature | None = None  # the graph that the tokenizer has yet to be checked with
        self._is_right: Callable[[], None] = lambda: None  # to be called once nothing of the package is unchecked
        self._leaves: list[Callable[[], None]] = []  # what is to be done once the tokenizer was read

    @classmethod
    def of(cls, settings: "ReplicaSettings") -> "StartCache":
        """The cache that a replica's command line asks for."""
        return cls(settings.start_cache, log_format=settings.log_format, kernels=settings.kernels)

    def begin(self, folder: Path) -> None:
        """Open a package in a thread, and read its bytes where that was not done before; `check_package` goes on."""
        self._opened = Future()
        threading.Thread(target=self._run, args=(folder, self._opened), name="tidemill-open", daemon=True).start()

    def check_package(self, folder: Path) -> ModelPackage:
        """The package, once its graph is checked, or all of it was before. Raises ModelPackageError.

        Its bytes may still be read: see `until_right`. And `token_pieces` is what checks the tokenizer.
        """
        package, self._digests = self._open(folder) if self._opened is None else self._opened.result()
        if self._digests is not None:
            from tidemill_models.check import check_graph  # noqa: PLC0415 -- its imports take a while

            self._unchecked = check_graph(package, self._digests)
            if self._unchecked is None:
                self.until_right()
                self._is_right()
        return package

    def until_right(self) -> None:
        """Wait until each byte of the package was read, now or before. Raises ModelPackageError if one was changed.

        Until then nothing may be handed to what would trust it.
        """
        if self._digests is not None:
            self._digests.until_right()

    def token_pieces(self, package: ModelPackage) -> TokenPieces:
        """What the tokens of an opened package stand for. Raises ModelPackageError.

        Of a package that was not checked before the tokenizer is checked here, while the graph is loaded; and since no
        answer can be told without these, none is before every byte was read.
        """
        kept = None if self._settings is None else KeptPieces(self._settings.folder / "pieces")
        if self._unchecked is not None:
            from tidemill_models.check import read_checked_tokenizer  # noqa: PLC0415 -- see above

            pieces = read_checked_tokenizer(package, self._unchecked).pieces
            self.until_right()
            self._leaves.append(self._is_right)
        elif kept is not None and (found := kept.read(package)) is not None:
            return found
        else:
            pieces = read_pieces(package)
        if kept is not None:
            self._leaves.append(partial(kept.keep, package, pieces))
        self._leaves.append(give_back)
        return pieces

    def keep(self) -> None:
        """What `token_pieces` gave is in use: leave it to the next start, and give back what reading it took."""
        while self._leaves:
            self._leaves.pop(0)()

    def graph_copy(self, package: ModelPackage) -> PreparedGraph | None:
        """Where the prepared copy of the package's graph is, or will be; None where none is wanted."""
        settings = self._settings
        num_bytes = sum(file.bytes for file in package.manifest.files.values())
        if settings is None or not settings.min_package_bytes <= num_bytes <= settings.max_bytes:
            return None
        if package.decoder.cache != "in-place":  # such a graph is slow anyway, and is not worth a copy
            return None
        from tidemill_serving.decoder.devices.ort_session import runtime_name  # noqa: PLC0415 -- imports onnxruntime

        graphs = PreparedGraphs(settings.folder / "prepared", settings.max_bytes)
        self._maker = [sys.executable, "-m", "tidemill_serving.start_cache.prepare"]
        self._maker += ["--graph", str(package.graph_path), "--graph-bytes", str(num_bytes)]
        self._maker += ["--digest", package.digest, "--folder", str(graphs.folder)]
        self._maker += ["--max-bytes", str(graphs.max_bytes), "--log-format", self._log_format]
        self._maker += ["--kernels", self._kernels]
        return graphs.of(package.digest, runtime_name(self._kernels))

    def prepare(self) -> None:
        """The replica is ready: have the copy made, if one is wanted, for the next one."""
        if self._maker and self._settings is not None:
            after_seconds = self._settings.prepare_after_seconds
            threading.Thread(
                target=self._make_copy, args=(after_seconds,), name="tidemill-prepare", daemon=True
            ).start()

    def _run(self, folder: Path, opened: "Future[tuple[ModelPackage, DigestsInReading | None]]") -> None:
        try:
            opened.set_result(self._open(folder))
        except Exception as error:  # noqa: BLE001 -- whoever waits hears of it
            opened.set_exception(error)

    def _open(self, folder: Path) -> tuple[ModelPackage, DigestsInReading | None]:
        """The package; and, unless it was checked before, its digests. Raises ModelPackageError."""
        package = load_package(folder)
        if self._settings is not None:
            checked = CheckedPackages(self._settings.folder / "checked")
            name = checked.identify(package)
            if checked.has(name):
                return package, None
            self._is_right = partial(checked.note, name)
        refuse_unnamed_files(package)
        return package, DigestsInReading(package, mapped=True)

    def _make_copy(self, after_seconds: float) -> None:
        """Wait for the maker: it is killed when the thread that started it ends, and so with this process."""
        time.sleep(after_seconds)
        try:
            subprocess.run(self._maker, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        except OSError as error:
            _log.info("no prepared graph is made: %s", error)
