"""Two control processes on one Postgres, of which one is restarted, watched by a real Prometheus.

Whoever tells of it keeps count of what the two did by what their callers were told.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psycopg
import pytest

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.prometheus_server import Job, Prometheus, prometheus_server
from tests.scrape_front import Front, front
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import account_pb2, billing_pb2, model_pb2, session_pb2, usage_pb2

CUSTOMER = "herons"
CUSTOMERS_MODEL = "tiny-llama-positions"
BILLING = "billing"  # the name of its target
SEAL_SECONDS = 60.0
WAKE_SECONDS = 240.0

Payer = tuple[str, str]
"""An account, and the model that it used."""


@dataclass
class Mill:
    """One control process, in all its lives; its front has one address through them."""

    data_dir: Path
    database_url: str
    front: Front
    service: Front  # before both
    did: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def life(self) -> Iterator[Wire]:
        """Run it until the end of the block; calls come with its own key, of an administrator."""
        arguments = ("--database", self.database_url, "--replica-device", "fake")
        with server_process(self.data_dir, *arguments) as server, wire_to(server) as wire:
            self.server: ServerProcess = server
            self.front.targets.append(server.admin)
            self.service.targets.append(server.admin)
            yield wire
        self.front.targets.remove(server.admin)  # somebody else may get its port
        self.service.targets.remove(server.admin)

    def serve(self, wire: Wire, num_generations: int) -> None:
        """Have it answer."""
        wait_until(lambda: wire.model().state == model_pb2.Model.STATE_READY, "a ready model", WAKE_SECONDS)
        for _ in range(num_generations):
            usage = list(wire.generate(max_tokens=8))[-1].end.usage
            self.did["tidemill_prompt_tokens_total"] += usage.prompt_tokens
            self.did["tidemill_completion_tokens_total"] += usage.completion_tokens
            self.did["tidemill_generation_seconds_count"] += 1
            self.did["tidemill_requests_total"] += 1

    def start(self, wire: Wire) -> None:
        """Start a session of its key."""
        wire.start()
        self.did["tidemill_sessions_started_total"] += 1

    def stop(self, wire: Wire) -> usage_pb2.Bill:
        """Stop it."""
        self.did["tidemill_sessions_stopped_total"] += 1
        return wire.stop().session.bill


@dataclass
class Story:
    """What was done, and who watched."""

    database_url: str
    prometheus: Prometheus
    a: Mill
    b: Mill
    num_refused: int = 0
    alone: tuple[int, int] = (0, 0)  # the places among the service's answers between which b was away
    billed_seconds: Counter[Payer] = field(default_factory=Counter)  # as final bills said
    charged: Counter[Payer] = field(default_factory=Counter)
    refunded: Counter[Payer] = field(default_factory=Counter)

    def first_chapter(self, wire: Wire, others: Wire) -> None:
        """Both serve; then b's session ends."""
        self.prometheus.wait_for_scrapes()
        self.a.start(wire)
        self.b.start(others)
        self.a.serve(wire, 3)
        self.b.serve(others, 2)
        for number in range(2):
            with pytest.raises(grpc.RpcError):
                list(wire.generate(model=f"none-{number}"))
            self.num_refused += 1
        self._wait_for_last_block()
        self.prometheus.wait_for_scrapes()  # all that will be charged is there, at 0
        self._take_bill(self.b.stop(others))
        self.prometheus.wait_for_scrapes()  # what is counted after the last page is lost with the process

    def between_the_chapters(self, customer: Wire, session: str) -> None:
        """b is not there; a customer's session that it started is stopped all the same."""
        begin = len(self.a.service.answered_by)
        request = session_pb2.StopSessionRequest(name=session, all_holders=True)
        stopped = customer.sessions.StopSession(request, metadata=customer.metadata).session
        self._take_bill(stopped.bill, (CUSTOMER, CUSTOMERS_MODEL))
        self.prometheus.wait_for_scrapes("a", BILLING)
        self.alone = (begin, len(self.a.service.answered_by))

    def last_chapter(self, wire: Wire, others: Wire, session: str) -> None:
        """b is there again; both serve, the customer gets a refund, and all sessions end."""
        self.prometheus.wait_for_scrapes()
        self.b.start(others)
        self.b.serve(others, 1)
        self.a.serve(wire, 1)
        request = billing_pb2.RefundCreditsRequest(session=session, reason="b was away")
        refund = wire.accounts.RefundCredits(request, metadata=wire.metadata)
        self.refunded[CUSTOMER, CUSTOMERS_MODEL] += refund.amount_microcredits
        self._take_bill(self.a.stop(wire))
        self._take_bill(self.b.stop(others))
        self._wait_for_last_block()
        self.prometheus.wait_for_scrapes()

    def _take_bill(self, bill: usage_pb2.Bill, payer: Payer = ("local", MODEL)) -> None:
        assert bill.final
        self.billed_seconds[payer] += bill.billed_seconds
        self.charged[payer] += bill.cost_microcredits

    def _wait_for_last_block(self) -> None:
        rows, blocks = "SELECT max(ledger_sequence) FROM ledger_entries", "SELECT max(last_sequence) FROM ledger_blocks"
        end = time.monotonic() + SEAL_SECONDS
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            while connection.execute(rows).fetchone() != connection.execute(blocks).fetchone():
                assert time.monotonic() < end, f"the ledger's last rows are not sealed after {SEAL_SECONDS:g} s"
                time.sleep(0.05)


@contextmanager
def story(folder: Path, database_url: str) -> Iterator[Story]:
    """Tell it; both run on until the end of the block, but nothing more is done."""
    with ExitStack() as parts:
        service, *fronts = [parts.enter_context(front()) for _ in range(3)]
        a, b = (Mill(folder / name, database_url, own, service) for name, own in zip("ab", fronts, strict=True))
        jobs = (Job(a.front.address, "a"), Job(b.front.address, "b"), Job(service.address, BILLING, "/metrics/billing"))
        told = Story(database_url, parts.enter_context(prometheus_server(folder / "prometheus", *jobs)), a, b)
        wire = parts.enter_context(a.life())
        b.data_dir.mkdir()
        shutil.copy2(a.data_dir / "secret", b.data_dir / "secret")  # one platform, one secret
        customers_key = _new_customer(wire)
        with b.life() as others, wire_to(b.server, customers_key) as customer:
            session = customer.start(model=CUSTOMERS_MODEL).session.name
            told.first_chapter(wire, others)
            _wait_for_clock(customer, session)
        with wire_to(a.server, customers_key) as customer:
            told.between_the_chapters(customer, session)
        told.last_chapter(wire, parts.enter_context(b.life()), session)
        yield told


def _wait_for_clock(wire: Wire, session: str) -> None:
    """Wait until a session costs something."""
    request = session_pb2.GetSessionRequest(name=session)

    def is_billed() -> bool:
        return wire.sessions.GetSession(request, metadata=wire.metadata).bill.billed_seconds > 0

    wait_until(is_billed, "a second that is billed", WAKE_SECONDS)


def _new_customer(wire: Wire) -> str:
    """An account with credits; its key."""
    name = wire.accounts.CreateAccount(
        account_pb2.CreateAccountRequest(account_id=CUSTOMER), metadata=wire.metadata
    ).name
    grant = billing_pb2.GrantCreditsRequest(account=name, amount_microcredits=10**9, reason="to begin with")
    wire.accounts.GrantCredits(grant, metadata=wire.metadata)
    key = account_pb2.CreateApiKeyRequest(account=name)
    return wire.accounts.CreateApiKey(key, metadata=wire.metadata).secret
