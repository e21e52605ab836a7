"""What the engine's bench makes of the times that tokens came."""

import numpy as np
import pytest

from tests.bench.common.figures import Target
from tests.bench.engine import workloads
from tests.bench.engine.rows import Row, losses_first
from tests.bench.engine.subjects.base import Arrivals, Job, one_at_a_time
from tests.bench.engine.workloads import Prompts


def test_decode_counts_only_while_all_decode() -> None:
    late = [2.0, 3.0, 4.0]
    early = [0.5, 1.0, 2.0, 3.0]
    assert workloads.decode_sample([early, late])["decode"] == pytest.approx(2 / 1.0)


def test_decode_refuses_a_turn_in_which_the_sequences_never_met() -> None:
    with pytest.raises(AssertionError, match="never decoded all together"):
        workloads.decode_sample([[0.1, 0.2], [0.3, 0.4]])


def test_every_prompt_of_a_run_is_another() -> None:
    prompts = Prompts(8_000)
    assert len({tuple(prompts.make(16)) for _ in range(50)}) == 50


def test_all_engines_get_the_same_arrivals_with_prompts_of_their_own() -> None:
    prompts = Prompts(8_000)
    one, other = (workloads.arrival_jobs(prompts, 20, 3.0) for _ in range(2))
    assert [(job.at, len(job.prompt), job.max_tokens) for job in one] == [
        (job.at, len(job.prompt), job.max_tokens) for job in other
    ]
    assert one[0].prompt != other[0].prompt
    assert all(16 <= len(job.prompt) <= 512 and 8 <= job.max_tokens <= 64 for job in one)


def test_those_who_share_a_prefix_share_nothing_more() -> None:
    jobs = workloads.prefix_jobs(Prompts(8_000), 3)
    assert len({tuple(job.prompt[:512]) for job in jobs}) == 1
    assert len({tuple(job.prompt[512:]) for job in jobs}) == 4


def test_waiting_is_counted_from_each_arrival() -> None:
    jobs = [Job(1.0, [1], 2), Job(2.0, [1], 2)]
    found = workloads.arrival_sample(jobs, [[1.5, 1.6], [2.1, 2.3]])
    assert found["TTFT p50"] == pytest.approx(100)
    assert found["TTFT p95"] == pytest.approx(500)
    assert found["ITL p95"] == pytest.approx(200)


def test_an_engine_whose_batch_nobody_joins_answers_alike_jobs_in_one_batch_and_others_in_turn() -> None:
    seen = []

    def generate(prompts: list[list[int]], num_tokens: int) -> list[None]:
        seen.append(len(prompts))
        return [None] * num_tokens

    times = one_at_a_time([Job(0.0, [1, 2], 3), Job(0.0, [3, 4], 3)], generate)
    assert [len(each) for each in times] == [3, 3]
    one_at_a_time([Job(0.0, [1, 2], 3), Job(0.0, [3], 3)], generate)
    assert seen == [2, 1, 1]


def test_arrivals_come_when_they_are_due_and_none_is_lost() -> None:
    arrivals = Arrivals([Job(0.02, [1], 1), Job(0.0, [2], 1)])
    numbers = [number for number, _ in arrivals.due()]
    while arrivals.wait():
        numbers += [number for number, _ in arrivals.due()]
    assert numbers == [1, 0]


def test_the_same_direction_has_cosine_one() -> None:
    row = np.array([1.0, 2.0, 3.0])
    assert workloads.cosine(2 * row, row) == pytest.approx(1.0)


def test_missed_targets_come_before_lost_comparisons_before_the_rest() -> None:
    def row(metric: str, value: float, target: Target | None = None) -> Row:
        return Row("125m", "tidemill", "fp32", metric, 1, value, "ratio", peer="another", target=target)

    rows = [row("ahead", 2.0), row("behind", 0.9), row("missed", 1.1, Target(1.3, is_floor=True))]
    rows.append(row("met", 1.4, Target(1.3, is_floor=True)))
    assert [each.metric for each in losses_first(rows)] == ["missed", "behind", "met", "ahead"]


def test_two_answers_go_together_until_the_first_difference() -> None:
    assert workloads.agreement([1, 2, 3], [1, 2, 3]) == "agree in all 3 tokens"
    assert workloads.agreement([1, 2, 3], [1, 5, 3]) == "differ first at token 2 of 3: 2 and 5"


def test_a_prefix_is_as_much_shorter_as_its_followers_first_tokens() -> None:
    found = workloads.prefix_sample([1.0, 0.1, 0.2, 0.2])
    assert found == {"first": 1000.0, "following": pytest.approx(200.0), "times shorter": pytest.approx(5.0)}
