"""The order in which several processes run the tests."""

import os
from collections import defaultdict

import pytest

_SLOW_FIRST = ("tests/fault/", "tests/e2e/", "tests/integration/", "tests/contract/", "")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Part the modules among the processes, the slow kinds first.

    Each process begins with its own stretch of the list and takes over from others at the end: then only what is quick
    is left to take. A module stays whole, for the sake of its fixtures.
    """
    num_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    modules: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        modules[item.nodeid.partition("::")[0]].append(item)
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for name in modules:
        kinds[next(prefix for prefix in _SLOW_FIRST if name.startswith(prefix))].append(name)
    stretches: list[list[pytest.Item]] = [[] for _ in range(num_processes)]
    for kind in _SLOW_FIRST[:-1]:
        for number, name in enumerate(kinds[kind]):
            stretches[number % num_processes].extend(modules[name])
    for name in kinds[""]:
        min(stretches, key=len).extend(modules[name])
    items[:] = [item for stretch in stretches for item in stretch]
