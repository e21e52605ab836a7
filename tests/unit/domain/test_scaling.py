"""How many replicas a model should have, and where: the rules, by table and by property."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain.scaling import (
    WANTED_MS,
    Desire,
    HostFacts,
    ModelFacts,
    Need,
    ScalingPolicy,
    StartPolicy,
    assign,
    desired_replicas,
    is_in_use,
)

NOW = 1_000_000_000
POLICY = ScalingPolicy(max_replicas=4, target_generations_per_replica=8, idle_timeout_ms=7_200_000)
ASLEEP = ModelFacts("tide", POLICY)
USED = replace(ASLEEP, last_used_ms=NOW - 1_000)


@pytest.mark.parametrize(
    ("facts", "replicas", "need"),
    [
        pytest.param(ASLEEP, 0, Need.NONE, id="nobody asks"),
        pytest.param(replace(ASLEEP, num_waiting=1), 1, Need.USE, id="one waits"),
        pytest.param(replace(ASLEEP, num_waiting=200), 4, Need.USE, id="many wait: the maximum"),
        pytest.param(replace(USED, num_running=8), 1, Need.USE, id="a full target"),
        pytest.param(replace(USED, num_running=8, num_waiting=1), 2, Need.USE, id="one above the target"),
        pytest.param(replace(ASLEEP, open_sessions=1), 1, Need.USE, id="a session is open"),
        pytest.param(replace(ASLEEP, num_running=3), 0, Need.NONE, id="stopped, and some still finish"),
        pytest.param(replace(ASLEEP, num_running=3, num_waiting=1), 1, Need.USE, id="stopped, and asked for anew"),
        pytest.param(replace(ASLEEP, wanted_ms=NOW), 1, Need.USE, id="wanted now"),
        pytest.param(replace(ASLEEP, wanted_ms=NOW - WANTED_MS + 1), 1, Need.USE, id="wanted nearly too long ago"),
        pytest.param(replace(ASLEEP, wanted_ms=NOW - WANTED_MS), 0, Need.NONE, id="wanted too long ago"),
        pytest.param(
            replace(ASLEEP, wanted_ms=NOW - 2 * WANTED_MS, num_starting=1), 1, Need.USE, id="wanted, a slow start"
        ),
        pytest.param(
            replace(ASLEEP, wanted_ms=NOW - 2 * WANTED_MS, ready_ms=NOW - 1), 1, Need.USE, id="wanted, just ready"
        ),
        pytest.param(
            replace(ASLEEP, wanted_ms=NOW - 2 * WANTED_MS, ready_ms=NOW - WANTED_MS),
            0,
            Need.NONE,
            id="wanted, ready and not used",
        ),
        pytest.param(USED, 0, Need.NONE, id="used lately, and not up"),
        pytest.param(replace(USED, num_assigned=3), 1, Need.WARM, id="used lately, and up"),
        pytest.param(replace(USED, num_assigned=1, failed_starts=1), 0, Need.NONE, id="used lately, and failing"),
        pytest.param(
            replace(USED, num_assigned=1, last_used_ms=NOW - 7_200_000), 0, Need.NONE, id="not used for its idle time"
        ),
        pytest.param(
            replace(ASLEEP, policy=replace(POLICY, min_replicas=2)), 2, Need.USE, id="the operator wants two always"
        ),
        pytest.param(
            replace(USED, num_running=1, num_recently_needed=3), 3, Need.USE, id="a lull does not end what was needed"
        ),
        pytest.param(
            replace(ASLEEP, num_waiting=5, retry_ms=NOW + 1),
            0,
            Need.NONE,
            id="just stopped: an old count",
        ),
        pytest.param(
            replace(ASLEEP, open_sessions=1, retry_ms=NOW + 1), 1, Need.USE, id="just stopped, and a new session"
        ),
        pytest.param(
            replace(ASLEEP, num_waiting=5, retry_ms=NOW + 1, failed_starts=1), 1, Need.USE, id="failing, and waited for"
        ),
    ],
)
def test_a_model_gets_as_many_replicas_as_its_use_asks_for(facts, replicas, need):
    assert desired_replicas(facts, NOW) == Desire("tide", replicas, need)


@pytest.mark.parametrize(
    ("failed_starts", "delay_ms"), [(1, 1_000), (2, 5_000), (3, 60_000), (4, 120_000), (5, 240_000), (99, 600_000)]
)
def test_a_failing_start_is_tried_again_ever_later(failed_starts, delay_ms):
    assert StartPolicy().retry_delay_ms(failed_starts) == delay_ms
    assert StartPolicy().max_tries == 3


moments = st.none() | st.integers(NOW - 20_000_000, NOW)
counts = st.integers(0, 40)


@st.composite
def any_facts(draw):
    min_replicas = draw(st.integers(0, 3))
    return ModelFacts(
        "tide",
        ScalingPolicy(min_replicas, draw(st.integers(max(1, min_replicas), 6)), draw(st.integers(1, 9))),
        num_running=draw(counts),
        num_waiting=draw(counts),
        open_sessions=draw(counts),
        wanted_ms=draw(moments),
        last_used_ms=draw(moments),
        num_starting=draw(st.integers(0, 3)),
        ready_ms=draw(moments),
        num_assigned=draw(st.integers(0, 6)),
        failed_starts=draw(st.integers(0, 4)),
        num_recently_needed=draw(st.integers(0, 9)),
    )


@given(any_facts())
def test_the_number_stays_within_the_policy(facts):
    replicas = desired_replicas(facts, NOW).replicas
    assert facts.policy.min_replicas <= replicas <= facts.policy.max_replicas


@given(any_facts(), st.integers(1, 40))
def test_more_waiting_never_means_fewer_replicas(facts, more):
    busier = replace(facts, num_waiting=facts.num_waiting + more)
    assert desired_replicas(busier, NOW).replicas >= desired_replicas(facts, NOW).replicas
    assert desired_replicas(busier, NOW).replicas >= 1
    assert is_in_use(busier, NOW)


HOST = HostFacts("a", 2)
OTHER = HostFacts("b", 2)


def use(model: str, replicas: int = 1) -> Desire:
    return Desire(model, replicas, Need.USE)


def warm(model: str) -> Desire:
    return Desire(model, 1, Need.WARM)


@pytest.mark.parametrize(
    ("desires", "current", "hosts", "placement"),
    [
        pytest.param([use("tide")], {}, [], {}, id="no host: it stays queued"),
        pytest.param([use("tide")], {}, [HOST], {("tide", "a"): 1}, id="one host"),
        pytest.param([use("tide", 2)], {}, [HOST, OTHER], {("tide", "a"): 1, ("tide", "b"): 1}, id="spread by room"),
        pytest.param([use("tide", 9)], {}, [HOST], {("tide", "a"): 2}, id="no more than the host holds"),
        pytest.param([use("tide")], {("tide", "b"): 1}, [HOST, OTHER], {("tide", "b"): 1}, id="it stays where it is"),
        pytest.param([use("tide")], {("tide", "c"): 1}, [HOST], {("tide", "a"): 1}, id="its host was lost"),
        pytest.param([Desire("tide", 0, Need.NONE)], {("tide", "a"): 1}, [HOST], {}, id="it rests"),
        pytest.param(
            [use("a-new"), use("old")],
            {("old", "a"): 1},
            [HostFacts("a", 1)],
            {("old", "a"): 1},
            id="who has a place keeps it",
        ),
        pytest.param(
            [use("tide"), warm("spare")],
            {("spare", "a"): 1},
            [HostFacts("a", 1)],
            {("tide", "a"): 1},
            id="who is only kept warm gives way",
        ),
        pytest.param(
            [use("tide"), warm("spare")],
            {("spare", "a"): 1},
            [HOST],
            {("tide", "a"): 1, ("spare", "a"): 1},
            id="who is kept warm stays while there is room",
        ),
        pytest.param([use("tide")], {("tide", "a"): 1}, [HostFacts("a", 0)], {}, id="the host takes no more"),
    ],
)
def test_replicas_are_placed_where_there_is_room(desires, current, hosts, placement):
    assert assign(desires, current, hosts) == placement


@st.composite
def any_world(draw):
    hosts = [HostFacts(name, draw(st.integers(0, 4))) for name in draw(st.sets(st.sampled_from("abcd")))]
    models = sorted(draw(st.sets(st.sampled_from(["ebb", "flow", "neap", "tide"]))))
    desires = [Desire(model, draw(st.integers(1, 4)), draw(st.sampled_from([Need.USE, Need.WARM]))) for model in models]
    places = st.tuples(st.sampled_from(["ebb", "flow", "neap", "tide", "gone"]), st.sampled_from("abcdx"))
    return desires, draw(st.dictionaries(places, st.integers(1, 4))), hosts


@given(any_world())
def test_no_host_gets_more_than_it_holds_and_no_model_more_than_it_should_have(world):
    desires, current, hosts = world
    placement = assign(desires, current, hosts)
    assert all(replicas > 0 for replicas in placement.values())
    for host in hosts:
        assert sum(number for (_, host_id), number in placement.items() if host_id == host.host_id) <= host.capacity
    for desire in desires:
        assert sum(number for (model, _), number in placement.items() if model == desire.model) <= desire.replicas
    assert {host_id for _, host_id in placement} <= {host.host_id for host in hosts}


@given(any_world())
def test_a_placement_is_final_and_wastes_no_room(world):
    desires, current, hosts = world
    placement = assign(desires, current, hosts)
    assert assign(desires, placement, hosts) == placement
    wanted = sum(desire.replicas for desire in desires)
    assert sum(placement.values()) == min(wanted, sum(host.capacity for host in hosts))
