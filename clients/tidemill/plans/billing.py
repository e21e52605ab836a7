"""Credits, the ledger, receipts, prices and what was used."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tidemill import methods
from tidemill.billing_results import (
    LedgerBlock,
    LedgerEntry,
    Price,
    UsageReport,
    ledger_block_of,
    ledger_entry_of,
    price_of,
    usage_report_of,
)
from tidemill.errors import FieldInvalidError, ReceiptNotReadyError
from tidemill.inputs import is_list
from tidemill.plans.paging import emitted_pages, pages
from tidemill.receipt import Receipt, receipt_of
from tidemill.results import ModelPrices
from tidemill.steps import LONGEST_PAUSE, Deadline, Line, Plan, Sleep, build, request_id, spread, timestamp, unary
from tidemill.v1 import billing_pb2

_SEALING_LOOKS = 10
"""How often to look for a receipt whose last rows are not sealed yet; they are within a second."""
_SEALING_PAUSE = timedelta(seconds=0.5)
"""Between two looks, where the server does not say."""


def grant(account: str, amount_microcredits: int, reason: str, *, deadline: Deadline) -> Plan[LedgerEntry]:
    """Give an account credits."""
    request = build(
        billing_pb2.GrantCreditsRequest,
        account=account,
        amount_microcredits=amount_microcredits,
        reason=reason,
        request_id=request_id(),
    )
    return ledger_entry_of((yield from unary(methods.GRANT_CREDITS, request, deadline)))


def refund(session: str, amount_microcredits: int | None, reason: str, *, deadline: Deadline) -> Plan[LedgerEntry]:
    """Give back what a session cost; None: all that is not given back yet."""
    request = build(
        billing_pb2.RefundCreditsRequest,
        session=session,
        amount_microcredits=amount_microcredits,
        reason=reason,
        request_id=request_id(),
    )
    return ledger_entry_of((yield from unary(methods.REFUND_CREDITS, request, deadline)))


def correct(account: str, amount_microcredits: int, reason: str, *, deadline: Deadline) -> Plan[LedgerEntry]:
    """Add to a balance, or take from it."""
    request = build(
        billing_pb2.CorrectBalanceRequest,
        account=account,
        amount_microcredits=amount_microcredits,
        reason=reason,
        request_id=request_id(),
    )
    return ledger_entry_of((yield from unary(methods.CORRECT_BALANCE, request, deadline)))


def entries(
    account: str, session: str, kinds: Sequence[str], line: Line, *, new_deadline: Callable[[], Deadline]
) -> Plan[None]:
    """Emit an account's rows of the ledger, oldest first, page by page."""

    def of_page(page: billing_pb2.ListLedgerEntriesResponse) -> list[LedgerEntry]:
        return [ledger_entry_of(message) for message in page.ledger_entries]

    names = _names(kinds, "KIND_", "kinds")
    return emitted_pages(
        methods.LIST_LEDGER_ENTRIES, of_page, line, new_deadline, account=account, subject=session, kinds=names
    )


def receipt(session: str, *, deadline: Deadline) -> Plan[Receipt]:
    """Fetch a session's receipt; wait a little where its last rows are not sealed yet."""
    request = build(billing_pb2.GetReceiptRequest, session=session)
    for look in range(_SEALING_LOOKS):
        try:
            return receipt_of((yield from unary(methods.GET_RECEIPT, request, deadline)))
        except ReceiptNotReadyError as error:
            pause = (error.retry_after or _SEALING_PAUSE).total_seconds()
            if look == _SEALING_LOOKS - 1 or pause > LONGEST_PAUSE or not deadline.allows(pause):
                raise
        yield Sleep(spread(pause))
    raise AssertionError  # the last look returned or raised


def ledger_block(number: int, *, deadline: Deadline) -> Plan[LedgerBlock]:
    """Fetch a sealed block; 0 is the last one."""
    request = build(billing_pb2.GetLedgerBlockRequest, number=number)
    return ledger_block_of((yield from unary(methods.GET_LEDGER_BLOCK, request, deadline)))


def usage_report(
    account: str,
    start_time: datetime | None,
    end_time: datetime | None,
    group_by: Sequence[str],
    label_key: str,
    *,
    deadline: Deadline,
) -> Plan[UsageReport]:
    """Sum up what was used."""
    request = build(
        billing_pb2.GetUsageReportRequest,
        account=account,
        start_time=None if start_time is None else timestamp(start_time, "start_time"),
        end_time=None if end_time is None else timestamp(end_time, "end_time"),
        group_by=_names(group_by, "GROUP_BY_", "group_by"),
        label_key=label_key,
    )
    return usage_report_of((yield from unary(methods.GET_USAGE_REPORT, request, deadline)))


def prices(model: str, account: str, *, include_history: bool, limit: int, deadline: Deadline) -> Plan[list[Price]]:
    """Fetch prices by model, newest first, at most `limit`."""

    def of_page(page: billing_pb2.ListPricesResponse) -> list[Price]:
        return [price_of(message) for message in page.prices]

    return pages(
        methods.LIST_PRICES,
        of_page,
        limit,
        deadline,
        model=model,
        account=account,
        include_history=include_history,
    )


def set_price(model: str, wanted: ModelPrices, account: str, *, deadline: Deadline) -> Plan[Price]:
    """Set a model's price, for everybody or for one account."""
    if not isinstance(wanted, ModelPrices):
        raise FieldInvalidError("prices must be ModelPrices.", field="price")
    price = build(
        billing_pb2.Price,
        "price.",
        model=model,
        account=account,
        session_microcredits_per_second=wanted.session_microcredits_per_second,
        input_microcredits_per_million_tokens=wanted.input_microcredits_per_million_tokens,
        output_microcredits_per_million_tokens=wanted.output_microcredits_per_million_tokens,
    )
    return (yield from _set_price(price, deadline))


def withdraw_price(model: str, account: str, *, deadline: Deadline) -> Plan[Price]:
    """Take an account's own price of a model away."""
    price = build(billing_pb2.Price, "price.", model=model, account=account, withdrawn=True)
    return (yield from _set_price(price, deadline))


def _set_price(price: billing_pb2.Price, deadline: Deadline) -> Plan[Price]:
    request = build(billing_pb2.SetPriceRequest, price=price, request_id=request_id())
    return price_of((yield from unary(methods.SET_PRICE, request, deadline)))


def _names(found: Sequence[str], prefix: str, field: str) -> list[str]:
    """The contract's names of these."""
    if not is_list(found):
        raise FieldInvalidError(f"{field} must be a list of names.", field=field)
    return [f"{prefix}{str(name).upper()}" for name in found]
