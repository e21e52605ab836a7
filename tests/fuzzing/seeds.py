"""Where chance comes from: fixed in the short form, so that it finds the same each time; new in each full run."""

import os
import random
import secrets
from collections.abc import Callable
from typing import Any

import hypothesis

from tests.scale import IS_FULL

_GIVEN = os.environ.get("TIDEMILL_FUZZ_SEED")
SEED = int(_GIVEN) if _GIVEN else secrets.randbits(32) if IS_FULL else 20_260_101


def chance_of(name: str) -> random.Random:
    """A source of chance of its own for each test, so that no test moves another's."""
    print(f"TIDEMILL_FUZZ_SEED={SEED} makes this run again")
    return random.Random(f"{SEED} {name}")


def fuzzed(num_examples: int) -> Callable[[Any], Any]:
    """Have hypothesis call a function of the test that often. It shrinks what fails; nothing is kept between runs."""

    def decorate(function: Any) -> Any:
        print(f"TIDEMILL_FUZZ_SEED={SEED} makes this run again")
        settings = hypothesis.settings(
            max_examples=num_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            print_blob=False,
        )
        return settings(hypothesis.seed(SEED)(function))

    return decorate
