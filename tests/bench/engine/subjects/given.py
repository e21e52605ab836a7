"""What a measured process is started with. Imports nothing large: ours begins to read its model at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Given:
    """What a subject is started with."""

    model: Path
    precision: str
    threads: int
    slots: int  # sequences that must fit at once
    kernels: str  # of ours: whose products and attention compute
    keep: Path | None = None  # a folder for what makes the next start faster; None: nothing is kept
    context_length: int = 1024


def read_given() -> Given:
    """The process's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--keep", type=Path)
    return Given(**vars(parser.parse_args()))
