"""The money of a mill in memory: its ledger, its prices, and what was used."""

import grpc

from tests.unit.client.paging import page_of
from tests.unit.client.refusal import Refusal
from tests.unit.client.sealed_ledger import ACCOUNT, one_session
from tidemill.v1 import billing_pb2


class CreditBook:
    """Answers what AccountService says of money."""

    def __init__(self) -> None:
        self.ledger = one_session()
        self.prices = [billing_pb2.Price(revision=1, model="models/tide-nano", session_microcredits_per_second=700)]
        self.usage = billing_pb2.UsageReport()

    def _add(self, account: str, **fields):
        row = self.ledger.add(account, **fields)
        self.ledger.seal()
        return _entry(row)

    def GrantCredits(self, request, context):  # noqa: N802
        self._enter("GrantCredits", request, context)
        return self._add(
            request.account, kind="GRANT", amount_microcredits=request.amount_microcredits, reason=request.reason
        )

    def RefundCredits(self, request, context):  # noqa: N802
        self._enter("RefundCredits", request, context)
        amount = request.amount_microcredits if request.HasField("amount_microcredits") else 4_200
        return self._add(
            ACCOUNT, kind="REFUND", amount_microcredits=amount, reason=request.reason, subject=request.session
        )

    def CorrectBalance(self, request, context):  # noqa: N802
        self._enter("CorrectBalance", request, context)
        return self._add(
            request.account, kind="CORRECTION", amount_microcredits=request.amount_microcredits, reason=request.reason
        )

    def ListLedgerEntries(self, request, context):  # noqa: N802
        self._enter("ListLedgerEntries", request, context)
        found = [
            entry
            for entry in map(_entry, self.ledger.rows)
            if entry.account == (request.account or ACCOUNT)
            and request.subject in {"", entry.subject}
            and (not request.kinds or entry.kind in request.kinds)
        ]
        page, token = page_of(found, request)
        return billing_pb2.ListLedgerEntriesResponse(ledger_entries=page, next_page_token=token)

    def GetReceipt(self, request, context):  # noqa: N802
        self._enter("GetReceipt", request, context)
        return self.ledger.receipt(request.session)

    def GetLedgerBlock(self, request, context):  # noqa: N802
        self._enter("GetLedgerBlock", request, context)
        if request.number > len(self.ledger.blocks):
            context.abort_with_status(Refusal(grpc.StatusCode.NOT_FOUND, "LEDGER_BLOCK_NOT_FOUND").status())
        return self.ledger.blocks[request.number - 1]

    def GetUsageReport(self, request, context):  # noqa: N802
        self._enter("GetUsageReport", request, context)
        return self.usage

    def ListPrices(self, request, context):  # noqa: N802
        self._enter("ListPrices", request, context)
        newest = {(price.model, price.account): price for price in self.prices}
        found = [
            price
            for price in reversed(self.prices)
            if request.model in {"", price.model}
            and price.account in {"", request.account or ACCOUNT}
            and (request.include_history or (price is newest[price.model, price.account] and not price.withdrawn))
        ]
        page, token = page_of(found, request)
        return billing_pb2.ListPricesResponse(prices=page, next_page_token=token)

    def SetPrice(self, request, context):  # noqa: N802
        self._enter("SetPrice", request, context)
        made = billing_pb2.Price()
        made.CopyFrom(request.price)
        made.revision = len(self.prices) + 1
        made.actor = f"{ACCOUNT}/keys/0"
        made.create_time.FromSeconds(1_700_000_000)
        self.prices.append(made)
        return made


def _entry(row) -> billing_pb2.LedgerEntry:
    same = (
        "account", "account_sequence", "amount_microcredits", "balance_microcredits", "hold_microcredits",
        "held_microcredits", "ledger_sequence", "subject", "reason", "contra", "billed_seconds", "actor",
    )  # fmt: skip
    entry = billing_pb2.LedgerEntry(kind=f"KIND_{row['kind']}", **{name: row[name] for name in same})
    entry.commit_time.FromMilliseconds(row["commit_ms"])
    for name, moment in (("usage_start_time", row["from_ms"]), ("usage_end_time", row["until_ms"])):
        if moment:
            getattr(entry, name).FromMilliseconds(moment)
    return entry
