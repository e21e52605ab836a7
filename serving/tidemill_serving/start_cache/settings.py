"""What a replica is told about its cache."""

from dataclasses import dataclass
from pathlib import Path

MIN_PACKAGE_BYTES = 16 << 20  # a smaller one is loaded sooner than its copy is worth


@dataclass(frozen=True, slots=True)
class StartCacheSettings:
    """Where the cache lies and how large it may become."""

    folder: Path
    max_bytes: int
    min_package_bytes: int = MIN_PACKAGE_BYTES  # of which prepared copies are made
    prepare_after_seconds: float = 5.0  # of a ready replica; its first callers come first
