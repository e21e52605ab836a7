"""Units of work on prices. A price is a new revision; what was ever asked stays to be seen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, Select, func, insert, select

from tidemill_services.domain.audit import changes_between
from tidemill_services.domain.errors import ModelNotFoundError
from tidemill_services.domain.price import Price
from tidemill_services.store import audit
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of, sequence_of
from tidemill_services.store.tables import of_model, prices

NUMBERS = (
    "session_microcredits_per_second",
    "input_microcredits_per_million_tokens",
    "output_microcredits_per_million_tokens",
)


@dataclass(frozen=True, slots=True)
class PricePage:
    """Some prices, newest first."""

    prices: tuple[Price, ...]
    next_page_token: str  # empty on the last page


def enter_price(tx: Transaction, price: Price) -> Price:
    """Enter a price, which holds from now on; returns it with its revision and its time."""
    last = tx.connection.execute(select(func.max(prices.c.revision))).scalar() or 0
    entered = replace(price, revision=last + 1, create_ms=tx.now_ms)
    tx.connection.execute(insert(prices).values(**_columns(entered)))
    return entered


def set_price(tx: Transaction, asked: Price) -> Price:
    """Enter a price that an administrator sets, and note it in the audit trail with what held before."""
    before = _newest(tx, asked.model, asked.account_id)
    entered = enter_price(tx, asked)
    audit.record(
        tx,
        actor=asked.actor,
        action="SetPrice",
        account_id=asked.account_id,
        resource=f"models/{asked.model}",
        changes=changes_between({} if before is None else _columns(before), _columns(entered)),
    )
    return entered


def enter_package_price(tx: Transaction, price: Price) -> None:
    """Enter what a model's package asks, unless it asked the same last time: what an operator set since then stays."""
    of_package = (prices.c.model == price.model, prices.c.account_id == "", prices.c.actor == "")
    query = select(prices).where(*of_package).order_by(prices.c.revision.desc()).limit(1)
    last = tx.connection.execute(query).one_or_none()
    if last is None or any(last._mapping[name] != getattr(price, name) for name in NUMBERS):  # noqa: SLF001
        enter_price(tx, price)


def price_of(tx: Transaction, model: str, account_id: str) -> Price:
    """Return what a model costs an account now. Raises ModelNotFoundError."""
    found = current_prices(tx, account_id, model).get(model)
    if found is None:
        raise ModelNotFoundError(f"No model {model!r} is registered: `tidemill model list` shows what is.")
    return found


def current_prices(tx: Transaction, account_id: str, model: str | None = None) -> Mapping[str, Price]:
    """Return what each model, or one, costs an account now."""
    newest = (
        select(func.max(prices.c.revision))
        .where(of_model(prices, model), prices.c.account_id.in_(["", account_id]))
        .group_by(prices.c.model, prices.c.account_id)
    )
    query = select(prices).where(prices.c.revision.in_(newest)).order_by(prices.c.model, prices.c.account_id)
    return {price.model: price for price in _load(tx, query) if not price.withdrawn}  # the account's own one comes last


def list_prices(
    tx: Transaction,
    account_id: str,
    *,
    model: str | None = None,
    include_history: bool = False,
    page_size: int = 0,
    page_token: str = "",
) -> PricePage:
    """Return a page of what models cost an account: now, or ever. Raises FieldInvalidError."""
    size = page_size_of(page_size)
    query = select(prices).where(of_model(prices, model), prices.c.account_id.in_(["", account_id]))
    if not include_history:
        revisions = [price.revision for price in current_prices(tx, account_id, model).values()]
        query = query.where(prices.c.revision.in_(revisions))
    if page_token:
        query = query.where(prices.c.revision < sequence_of(page_token))
    found = _load(tx, query.order_by(prices.c.revision.desc()).limit(size + 1))
    page = tuple(found[:size])
    return PricePage(page, str(page[-1].revision) if len(found) > size else "")


def by_revision(tx: Transaction) -> Mapping[int, Price]:
    """Return every price that ever was."""
    return {price.revision: price for price in _load(tx, select(prices))}


def _newest(tx: Transaction, model: str, account_id: str) -> Price | None:
    query = select(prices).where(prices.c.model == model, prices.c.account_id == account_id)
    found = _load(tx, query.order_by(prices.c.revision.desc()).limit(1))
    return found[0] if found else None


def _load(tx: Transaction, query: Select[Any]) -> list[Price]:
    return [_price(row) for row in tx.connection.execute(query)]


def _price(row: Row[Any]) -> Price:
    return Price(**row._mapping)  # noqa: SLF001 -- a row's public mapping


def _columns(price: Price) -> dict[str, str | int | bool]:
    return {name: getattr(price, name) for name in Price.__dataclass_fields__}
