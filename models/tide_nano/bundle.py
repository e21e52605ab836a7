"""Where the package lies, and the digest that ties a score to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "serving" / "tidemill_models" / "bundled" / "tide-nano"


def manifest_digest(package: Path) -> str:
    """SHA-256 of a package's model.toml, 64 hex digits; model.toml holds the digests of all its other files."""
    return hashlib.sha256((package / "model.toml").read_bytes()).hexdigest()
