"""What a replica takes from the cache at its start, and what it leaves there for the next one."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
        self._is_right: Callable[[], None] = lambda: None  # to be called once nothing of the package is unchecked
        self._unchecked: GraphSignature | None = None  # the graph that the tokenizer has yet to be checked with

    def check_package(self, folder: Path) -> ModelPackage:
        """Open a package whose bytes are right: each was read now, or is as it was when that was done.

        What was not checked before is right only once `token_pieces` has read it. Raises ModelPackageError.
        """
        checked = name = None
        if self._settings is not None:
            checked = CheckedPackages(self._settings.folder / "checked")
            package = load_package(folder)
            name = checked.identify(package)
            if checked.has(name):
                return package
        from tidemill_models.check import check_files  # noqa: PLC0415 -- its imports take a while

        package, self._unchecked = check_files(folder)
        if checked is not None and name:
            self._is_right = partial(checked.note, name)
        if self._unchecked is None:
            self._is_right()
        return package

    def token_pieces(self, package: ModelPackage) -> TokenPieces:
        """What the tokens of an opened package stand for. Raises ModelPackageError.

        Of a package that was checked just now the tokenizer is checked here: meanwhile the graph can be loaded.
        """
        kept = None if self._settings is None else KeptPieces(self._settings.folder / "pieces")
        if self._unchecked is not None:
            from tidemill_models.check import read_checked_tokenizer  # noqa: PLC0415 -- see above

            pieces = read_checked_tokenizer(package, self._unchecked).pieces
            self._unchecked = None
            self._is_right()
        elif kept is not None and (found := kept.read(package)) is not None:
            return found
        else:
            pieces = read_pieces(package)
        give_back()
        if kept is not None:
            kept.keep(package, pieces)
        return pieces

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

    def _make_copy(self, after_seconds: float) -> None:
        """Wait for the maker: it is killed when the thread that started it ends, and so with this process."""
        time.sleep(after_seconds)
        try:
            subprocess.run(self._maker, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        except OSError as error:
            _log.info("no prepared graph is made: %s", error)
