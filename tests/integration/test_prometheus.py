"""A real Prometheus scrapes two control processes on one Postgres, through a restart of one of them."""

import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise

import psycopg
import pytest

from tests.databases import PostgresServer, postgres_server
from tests.integration.api.conftest import MODEL
from tests.integration.two_mills import BILLING, CUSTOMER, CUSTOMERS_MODEL, Payer, Story, story
from tests.metrics_document import EXPRESSIONS
from tests.metrics_page import read_page
from tests.prometheus_server import Labels, Samples, prometheus_programs

__all__ = ["postgres_server", "prometheus_programs"]

METHOD = "/tidemill.v1.InferenceService/Generate"
COUNTERS = {  # with the labels of what the story counts
    "tidemill_prompt_tokens_total": f'model="{MODEL}"',
    "tidemill_completion_tokens_total": f'model="{MODEL}"',
    "tidemill_generation_seconds_count": f'model="{MODEL}"',
    "tidemill_requests_total": f'method="{METHOD}",code="OK"',
    "tidemill_sessions_started_total": f'model="{MODEL}"',
    "tidemill_sessions_stopped_total": f'model="{MODEL}",reason="STOPPED"',
}
# What the page of the ledger says, as sums over its rows until the end of a block.
TOTALS = {
    "tidemill_session_billed_seconds_total": ("billed_seconds", "SESSION_CHARGE"),
    "tidemill_charged_microcredits_total": ("-amount_microcredits", "SESSION_CHARGE"),
    "tidemill_refunded_microcredits_total": ("amount_microcredits", "REFUND"),
    "tidemill_session_refunded_seconds_total": ("-billed_seconds", "REFUND"),
}


@pytest.fixture(scope="module")
def told(
    prometheus_programs: None, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    url = postgres_server.create_database()
    with story(tmp_path_factory.mktemp("prometheus"), url) as told:
        yield told
    postgres_server.drop_database(url)


def growth(samples: Samples) -> float:
    """How much a counter grew, with its new beginnings told apart, as `increase()` does before it extrapolates."""
    return sum(value - before if value >= before else value for (_, before), (_, value) in pairwise(samples))


def by(labels: Labels, *names: str) -> tuple[str, ...]:
    return tuple(dict(labels)[name] for name in names)


@pytest.mark.rule("L10")
def test_the_counters_of_each_process_grew_by_what_it_did_through_a_restart(told: Story) -> None:
    for name, mill in (("a", told.a), ("b", told.b)):
        for counter, labels in COUNTERS.items():
            (samples,) = told.prometheus.samples(f'{counter}{{{labels},instance="{name}"}}').values()
            assert samples[0][1] == 0, (name, counter)
            assert growth(samples) == mill.did[counter] > 0, (name, counter)


def test_a_restart_is_one_reset_of_the_process_that_was_restarted(told: Story) -> None:
    for counter, labels in COUNTERS.items():
        resets = told.prometheus.query(f"sum by (instance) (resets({counter}{{{labels}}}[1h]))")
        assert {by(series, "instance"): number for series, number in resets.items()} == {("a",): 0, ("b",): 1}


def test_increase_is_what_was_done_but_for_its_extrapolation_of_one_scrape(told: Story) -> None:
    for name, mill in (("a", told.a), ("b", told.b)):
        for counter, labels in COUNTERS.items():
            series = f'{counter}{{{labels},instance="{name}"}}'
            (samples,) = told.prometheus.samples(series).values()
            (increase,) = told.prometheus.query(f"increase({series}[1h])").values()
            assert_increase(increase, mill.did[counter], samples)


def assert_increase(increase: float, truth: float, samples: Samples) -> None:
    """Prometheus takes it that a counter went on growing until its next scrape, which did not come."""
    assert truth <= increase + 1e-6 * truth
    assert increase <= truth * (1 + 1.1 / (len(samples) - 1)) * (1 + 1e-6)


def test_refusals_are_counted_by_their_reason(told: Story) -> None:
    refused = told.prometheus.query(f'tidemill_requests_total{{method="{METHOD}",code!="OK"}} > 0')
    assert {by(series, "instance", "reason"): number for series, number in refused.items()} == {
        ("a", "MODEL_NOT_FOUND"): told.num_refused
    }


def test_both_processes_show_the_same_open_sessions(told: Story) -> None:
    is_open = f'tidemill_open_sessions{{model="{MODEL}",state="ACTIVE"}}'
    most = told.prometheus.query(f"max_over_time({is_open}[1h])")
    assert {by(series, "instance"): number for series, number in most.items()} == {("a",): 2, ("b",): 2}
    assert set(told.prometheus.query(is_open).values()) == {0}


@pytest.mark.rule("L9")
def test_every_page_of_the_ledger_is_the_sum_of_its_rows_until_the_block_that_it_names(told: Story) -> None:
    pages = pages_of(told)
    numbers = [page.pop("tidemill_ledger_block")["", ""] for page in pages]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]
    totals = {number: totals_at(told, number) for number in set(numbers)}
    for number, page in zip(numbers, pages, strict=True):
        for counter in TOTALS:
            counted = {payer: value for payer, value in page.get(counter, {}).items() if value}
            assert counted == totals[number][counter], (number, counter)


def pages_of(told: Story) -> list[dict[str, dict[Payer, float]]]:
    """What each scrape of the page of the ledger found, by name and payer, oldest first."""
    selector = f'{{instance="{BILLING}",__name__=~"tidemill_ledger_block|{"|".join(TOTALS)}"}}'
    pages: defaultdict[float, dict[str, dict[Payer, float]]] = defaultdict(dict)
    for series, samples in told.prometheus.samples(selector).items():
        labels = dict(series)
        for at, value in samples:  # of one scrape, all have the same time
            payer = labels.get("account", ""), labels.get("model", "")
            pages[at].setdefault(labels["__name__"], {})[payer] = value
    return [pages[at] for at in sorted(pages)]


def totals_at(told: Story, block: float) -> Mapping[str, Mapping[Payer, int]]:
    """The sums over the rows themselves, by SQL."""
    found: dict[str, dict[Payer, int]] = {}
    with psycopg.connect(told.database_url) as connection:
        for counter, (summed, kind) in TOTALS.items():
            rows = connection.execute(
                f"SELECT account_id, model, sum({summed}) FROM ledger_entries WHERE kind = %s AND ledger_sequence <= "
                "(SELECT last_sequence FROM ledger_blocks WHERE number = %s) GROUP BY account_id, model",
                (kind, int(block)),
            )
            found[counter] = {(account, model): int(total) for account, model, total in rows if total}
    return found


@pytest.mark.rule("L9")
def test_what_prometheus_saw_is_what_the_bills_said_and_is_not_doubled(told: Story) -> None:
    seconds, charged, refunded, refunded_seconds = (growth_by_payer(told, counter) for counter in TOTALS)
    assert net(seconds, refunded_seconds) == told.billed_seconds
    assert net(charged, refunded) == net(told.charged, told.refunded)
    assert set(told.charged) == {("local", MODEL), (CUSTOMER, CUSTOMERS_MODEL)}
    assert refunded[CUSTOMER, CUSTOMERS_MODEL] >= told.refunded[CUSTOMER, CUSTOMERS_MODEL] > 0


def growth_by_payer(told: Story, counter: str) -> dict[Payer, float]:
    """What its samples say; and its increase is the same, and no process began it anew."""
    seen = {by(series, "account", "model"): samples for series, samples in told.prometheus.samples(counter).items()}
    for series, increase in told.prometheus.query(f"increase({counter}[1h])").items():
        samples = seen[by(series, "account", "model")]
        assert samples[0][1] == 0
        assert_increase(increase, growth(samples), samples)
    assert set(told.prometheus.query(f"resets({counter}[1h])").values()) == {0}
    return {payer: growth(samples) for payer, samples in seen.items()}


def net(amounts: Mapping[Payer, float], given_back: Mapping[Payer, float]) -> dict[Payer, float]:
    return {payer: amount - given_back.get(payer, 0) for payer, amount in amounts.items()}


def test_the_page_of_the_ledger_came_from_both_processes_in_turn_and_from_one_while_the_other_was_away(
    told: Story,
) -> None:
    answered, a = told.a.service.answered_by, told.a.server.admin
    begin, end = told.alone
    for together in (answered[:begin], answered[end:]):
        assert a in together
        assert set(together) > {a}
    assert set(answered[begin:end]) == {a}


def test_prometheus_takes_every_expression_of_the_documents(told: Story) -> None:
    for expression in EXPRESSIONS:
        told.prometheus.query(expression)


def test_promtool_finds_nothing_to_say_of_the_pages(told: Story) -> None:
    for page in ("/metrics", "/metrics/billing"):
        text = read_page(told.a.server.admin, page)
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", ""), page
