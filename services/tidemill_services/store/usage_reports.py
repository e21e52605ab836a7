"""Units of work on usage reports: sums over the ledger's rows, with what the sessions say of themselves."""

import json
from typing import Any

from sqlalchemy import Row, and_, case, func, or_, select

from tidemill_services.domain.ledger import CHARGES, EntryKind
from tidemill_services.domain.session_billing import DAY_MS
from tidemill_services.domain.usage_report import ReportQuestion, UsageRow, UseOfADay, summed_up
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import ledger_entries, sessions

_SESSIONS = "sessions/"
_KEYS = "keys/"


def make_report(tx: Transaction, account_id: str, question: ReportQuestion) -> tuple[list[UsageRow], UsageRow]:
    """Return an account's rows and their sum."""
    entry = ledger_entries.c
    sums = (
        select(
            (entry.from_ms // DAY_MS).label("day"),
            entry.subject,
            entry.model,
            func.sum(entry.billed_seconds).label("billed_seconds"),
            func.sum(case((entry.kind == EntryKind.REFUND.value, 0), else_=-entry.amount_microcredits)).label(
                "charged"
            ),
            func.sum(case((entry.kind == EntryKind.REFUND.value, entry.amount_microcredits), else_=0)).label(
                "refunded"
            ),
            func.sum(entry.num_generations).label("num_generations"),
            func.sum(entry.prompt_tokens).label("prompt_tokens"),
            func.sum(entry.completion_tokens).label("completion_tokens"),
        )
        .where(
            entry.account_id == account_id,
            # As the index has it: no row is of more than a day.
            entry.until_ms.between(question.start_ms, question.end_ms + DAY_MS),
            entry.from_ms >= question.start_ms,
            entry.from_ms < question.end_ms,
            entry.kind.in_([kind.value for kind in (*CHARGES, EntryKind.REFUND)]),
            or_(*(entry.subject.startswith(each) for each in (_SESSIONS, _KEYS))),
        )
        .group_by("day", entry.subject, entry.model)
        .subquery()
    )
    session_id = func.substr(sums.c.subject, len(_SESSIONS) + 1)
    query = select(sums, sessions.c.key_id, sessions.c.labels).outerjoin(
        sessions, and_(sums.c.subject.startswith(_SESSIONS), sessions.c.session_id == session_id)
    )
    return summed_up(map(_use, tx.connection.execute(query)), question)


def _use(row: Row[Any]) -> UseOfADay:
    """One row of the sums. An answer that its tokens paid names the key; what a session paid, the session."""
    is_session = row.subject.startswith(_SESSIONS)
    return UseOfADay(
        day=int(row.day),
        session_id=row.subject.removeprefix(_SESSIONS) if is_session else "",
        model=row.model,
        key_id=row.key_id if is_session else row.subject.removeprefix(_KEYS),
        labels=json.loads(row.labels) if is_session else {},
        billed_seconds=int(row.billed_seconds),
        charged_microcredits=int(row.charged),
        refunded_microcredits=int(row.refunded),
        num_generations=int(row.num_generations),
        prompt_tokens=int(row.prompt_tokens),
        completion_tokens=int(row.completion_tokens),
    )
