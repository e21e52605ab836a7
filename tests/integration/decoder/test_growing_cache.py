"""Exports that grow their cache: each kind is served rightly, however little of it can be done at once."""

import numpy as np
import pytest

from tests.growing_graph import KINDS, write_growing_graph, write_growing_package
from tests.integration.decoder.models import reference, running_engine
from tests.unit.decoder.recorder import request
from tidemill_models.check import check_package
from tidemill_models.errors import GraphError
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.growing import Abilities, GrowingCacheDevice

MAX_TOKENS, CASES = reference()
ABILITIES = {
    "positions told": Abilities(takes_chunks=True, takes_batches=True),
    "positions from the mask": Abilities(takes_chunks=True, takes_batches=True),
    "positions from the width": Abilities(takes_chunks=True, takes_batches=False),
    "merged": Abilities(takes_chunks=True, takes_batches=True),
    "one token with a past": Abilities(takes_chunks=False, takes_batches=True),
    "dynamic int8": Abilities(takes_chunks=False, takes_batches=False),
}


def loaded(graph, num_slots=4, context_length=600):
    device = GrowingCacheDevice(num_threads=1, spinning=False)
    device.load(graph, num_slots=num_slots, context_length=context_length, on_progress=lambda _: None)
    return device


@pytest.fixture
def growing(tmp_path):
    """Makes the package tiny-llama anew with a graph of some kind."""

    def package(kind, cache='cache = "grows"\n'):
        return write_growing_package(tmp_path, KINDS[kind], cache)

    return package


@pytest.mark.parametrize("kind", ABILITIES)
def test_it_is_found_out_what_a_graph_can_do(tmp_path, kind):
    device = loaded(write_growing_graph(tmp_path / "model.onnx", KINDS[kind]))
    assert device._abilities == ABILITIES[kind]
    device.close()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dynamic int8"])
def test_prompts_in_a_crowd_get_the_reference_answers(growing, kind):
    chosen = range(0, 32, 4)
    with running_engine(
        growing(kind), device=GrowingCacheDevice, num_slots=3, num_waiting_places=32, max_chunk_length=64
    ) as (engine, recorder):
        for i in chosen:
            engine.submit(request(i, CASES[i].prompt, MAX_TOKENS))
        recorder.wait_for_ends(*chosen)
    for i in chosen:
        assert recorder.tokens[i] == CASES[i].tokens, f"a prompt of {len(CASES[i].prompt)} tokens"


def test_a_graph_that_scales_over_its_batch_answers_the_same_alone_and_in_a_crowd(growing):
    package, chosen, alone = growing("dynamic int8"), range(0, 12, 3), {}
    for crowd in (False, True):
        with running_engine(package, device=GrowingCacheDevice, num_slots=4, max_chunk_length=64) as (engine, recorder):
            for i in chosen:
                engine.submit(request(i, CASES[i].prompt, 12))
                if not crowd:
                    recorder.wait_for_ends(i)
            recorder.wait_for_ends(*chosen)
        if crowd:
            assert recorder.tokens == alone
        alone = recorder.tokens


def test_what_a_slot_held_before_harms_no_neighbour(tmp_path):
    device = loaded(write_growing_graph(tmp_path / "model.onnx", KINDS["positions told"]))
    prompts = [np.array(CASES[i].prompt) for i in (3, 14)]
    past = np.array([len(prompt) for prompt in prompts])
    answers = []
    for _ in range(2):
        for slot, prompt in enumerate(prompts):
            device.extend(slot, prompt, 0)
        answers.append(device.decode(np.array([7, 8]), past).copy())
        for array in device._cache.keys + device._cache.values:
            array[:] = np.nan
    assert np.isfinite(answers[1]).all()
    assert (answers[0] == answers[1]).all()


def test_a_context_beyond_the_graphs_positions_is_refused(tmp_path):
    graph = write_growing_graph(tmp_path / "model.onnx", KINDS["positions told"])
    loaded(graph, context_length=1024)
    with pytest.raises(ModelRefusedError, match="does not reach a context of 1025 tokens"):
        loaded(graph, context_length=1025)


def test_a_package_says_that_it_is_slow_or_is_refused(growing):
    with pytest.raises(GraphError, match=r"no GroupQueryAttention.*or put `cache = \"grows\"`"):
        check_package(growing("positions told", cache=""))
    assert check_package(growing("positions told")).decoder.cache == "grows"
