"""The half of the Account service that is about money: credits, the ledger, receipts, usage reports, prices."""

from collections.abc import Callable
from typing import Any

import grpc

from tidemill.v1 import account_pb2_grpc, billing_pb2
from tidemill_services.api import billing_messages, convert
from tidemill_services.api.account_scope import account_meant
from tidemill_services.api.billing_messages import GROUPINGS, KINDS, block_message, entry_message, price_message
from tidemill_services.api.idempotency import once, request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.ledger import LedgerEntry
from tidemill_services.domain.price import Price, check_price
from tidemill_services.domain.usage_report import GroupBy, ReportQuestion, UsageRow, first_of_month_ms
from tidemill_services.store import account_credits, accounts, ledger, models, prices, receipts, sessions, usage_reports
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.ledger_seal import get_block

Context = grpc.aio.ServicerContext[Any, Any]


class BillingMethods(account_pb2_grpc.AccountServiceServicer):
    """Serves the methods of `tidemill.v1.AccountService` that are about money."""

    _database: Database

    async def GrantCredits(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.GrantCreditsRequest, _context: Context
    ) -> billing_pb2.LedgerEntry:
        """Give an account credits."""
        return await self._enter_amount("GrantCredits", request, account_credits.grant)

    async def RefundCredits(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.RefundCreditsRequest, _context: Context
    ) -> billing_pb2.LedgerEntry:
        """Give back what a session cost, or some of it."""
        actor, session_id = current_caller().key_name, convert.session_id(request.session, "session")
        amount = request.amount_microcredits if request.HasField("amount_microcredits") else None
        return await self._enter(
            "RefundCredits", request, lambda tx: account_credits.refund(tx, session_id, amount, request.reason, actor)
        )

    async def CorrectBalance(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.CorrectBalanceRequest, _context: Context
    ) -> billing_pb2.LedgerEntry:
        """Put a mistake right."""
        return await self._enter_amount("CorrectBalance", request, account_credits.correct)

    async def ListLedgerEntries(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.ListLedgerEntriesRequest, _context: Context
    ) -> billing_pb2.ListLedgerEntriesResponse:
        """List an account's rows."""
        account_id = account_meant(current_caller(), request.account, "account")
        session_id = convert.session_id(request.subject, "subject") if request.subject else None
        known = {number: kind for kind, number in KINDS.items()}
        if not set(request.kinds) <= set(known):
            raise FieldInvalidError("kinds must be of LedgerEntry.Kind, and specified.", field="kinds")

        def list_page(tx: Transaction) -> ledger.LedgerPage:
            accounts.get_account(tx, account_id)
            if session_id is not None:
                sessions.get_session(tx, account_id, session_id)
            return ledger.list_entries(
                tx,
                account_id,
                subject=request.subject,
                kinds=[known[kind] for kind in request.kinds],
                page_size=request.page_size,
                page_token=request.page_token,
            )

        page = await self._database.read(list_page)
        return billing_pb2.ListLedgerEntriesResponse(
            ledger_entries=[entry_message(entry) for entry in page.entries], next_page_token=page.next_page_token
        )

    async def GetReceipt(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.GetReceiptRequest, _context: Context
    ) -> billing_pb2.Receipt:
        """Return a session's rows with their proof."""
        session_id = convert.session_id(request.session, "session")
        receipt = await self._database.read(receipts.make_receipt, current_caller().account_id, session_id)
        return billing_messages.receipt_message(receipt)

    async def GetLedgerBlock(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.GetLedgerBlockRequest, _context: Context
    ) -> billing_pb2.LedgerBlock:
        """Return a sealed block."""
        return block_message(await self._database.read(get_block, request.number))

    async def GetUsageReport(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.GetUsageReportRequest, _context: Context
    ) -> billing_pb2.UsageReport:
        """Sum up what was used."""
        account_id = account_meant(current_caller(), request.account, "account")
        group_by = _group_by(request)

        def report(tx: Transaction) -> tuple[ReportQuestion, list[UsageRow], UsageRow]:
            accounts.get_account(tx, account_id)
            question = ReportQuestion(
                convert.milliseconds(request.start_time)
                if request.HasField("start_time")
                else first_of_month_ms(tx.now_ms),
                convert.milliseconds(request.end_time) if request.HasField("end_time") else tx.now_ms + 1,
                group_by,
                request.label_key,
            )
            question.check()
            return question, *usage_reports.make_report(tx, account_id, question)

        question, rows, total = await self._database.read(report)
        return billing_pb2.UsageReport(
            rows=[billing_messages.usage_message(row, account_id) for row in rows],
            total=billing_messages.usage_message(total, account_id),
            start_time=convert.timestamp(question.start_ms),
            end_time=convert.timestamp(question.end_ms),
        )

    async def ListPrices(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.ListPricesRequest, _context: Context
    ) -> billing_pb2.ListPricesResponse:
        """List what models cost an account."""
        account_id = account_meant(current_caller(), request.account, "account")
        model = convert.model_id(request.model)

        def list_page(tx: Transaction) -> prices.PricePage:
            accounts.get_account(tx, account_id)
            if model:
                models.get_model(tx, model)
            return prices.list_prices(
                tx,
                account_id,
                model=model or None,
                include_history=request.include_history,
                page_size=request.page_size,
                page_token=request.page_token,
            )

        page = await self._database.read(list_page)
        return billing_pb2.ListPricesResponse(
            prices=[price_message(price) for price in page.prices], next_page_token=page.next_page_token
        )

    async def SetPrice(  # noqa: N802 -- the contract's name
        self, request: billing_pb2.SetPriceRequest, _context: Context
    ) -> billing_pb2.Price:
        """Set what a model costs from now on."""
        caller = current_caller()
        asked = _asked_price(request.price, caller.key_name)

        def enter(tx: Transaction) -> billing_pb2.Price:
            models.get_model(tx, asked.model)
            if asked.account_id:
                accounts.get_account(tx, asked.account_id)
            return price_message(prices.set_price(tx, asked))

        key = request_key(caller, "SetPrice", request, request.request_id)
        return await self._database.write(once, key, billing_pb2.Price, enter)

    async def _enter_amount(
        self,
        rpc: str,
        request: billing_pb2.GrantCreditsRequest | billing_pb2.CorrectBalanceRequest,
        unit: Callable[[Transaction, str, int, str, str], LedgerEntry],
    ) -> billing_pb2.LedgerEntry:
        actor, account_id = current_caller().key_name, _account_named(request.account)
        return await self._enter(
            rpc, request, lambda tx: unit(tx, account_id, request.amount_microcredits, request.reason, actor)
        )

    async def _enter(
        self,
        rpc: str,
        request: billing_pb2.GrantCreditsRequest | billing_pb2.RefundCreditsRequest | billing_pb2.CorrectBalanceRequest,
        enter: Callable[[Transaction], LedgerEntry],
    ) -> billing_pb2.LedgerEntry:
        key = request_key(current_caller(), rpc, request, request.request_id)
        return await self._database.write(once, key, billing_pb2.LedgerEntry, lambda tx: entry_message(enter(tx)))


def _account_named(name: str) -> str:
    if not name:
        raise FieldInvalidError("account must be accounts/{account}.", field="account")
    return convert.account_id(name, "account")


def _group_by(request: billing_pb2.GetUsageReportRequest) -> frozenset[GroupBy]:
    if not request.group_by:
        return frozenset({GroupBy.DAY, GroupBy.MODEL})
    if not set(request.group_by) <= set(GROUPINGS):
        raise FieldInvalidError("group_by must be of GroupBy, and specified.", field="group_by")
    return frozenset(GROUPINGS[number] for number in request.group_by)


def _asked_price(price: billing_pb2.Price, actor: str) -> Price:
    if not price.model:
        raise FieldInvalidError("price.model must be models/{model}.", field="price.model")
    if price.withdrawn and not price.account:
        raise FieldInvalidError(
            "Only an account's own price can be withdrawn: name price.account.", field="price.account"
        )
    asked = Price(
        revision=0,
        model=convert.model_id(price.model, "price.model"),
        account_id=convert.account_id(price.account, "price.account"),
        session_microcredits_per_second=0 if price.withdrawn else price.session_microcredits_per_second,
        input_microcredits_per_million_tokens=0 if price.withdrawn else price.input_microcredits_per_million_tokens,
        output_microcredits_per_million_tokens=0 if price.withdrawn else price.output_microcredits_per_million_tokens,
        create_ms=0,
        actor=actor,
        withdrawn=price.withdrawn,
    )
    for name in prices.NUMBERS:
        check_price(getattr(asked, name), f"price.{name}")
    return asked
