"""Starts our engine as a replica does: its package is opened, and its bytes are read, while all else is imported."""

from functools import partial
from typing import cast

from tests.bench.engine.subjects.given import read_given
from tidemill_serving.native import KernelsChoice
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_cache.settings import StartCacheSettings

_KEPT_BYTES = 8 << 30


def main() -> None:
    """See the module."""
    given = read_given()
    kept = StartCacheSettings(given.keep, _KEPT_BYTES, prepare_after_seconds=0.0) if given.keep else None
    cache = StartCache(kept, kernels=cast("KernelsChoice", given.kernels))
    cache.begin(given.model)
    from tests.bench.engine.subjects.base import serve  # here, since these are the longest part of a start
    from tests.bench.engine.subjects.ours_engine import Ours

    serve(partial(Ours, cache=cache), ("onnxruntime", "numpy"))


if __name__ == "__main__":
    main()
