"""Units of work on usage reports: sums over the ledger's rows, with what the sessions say of themselves."""

import json

from sqlalchemy import case, func, select

from tidemill_services.domain.ledger import CHARGES, EntryKind
from tidemill_services.domain.session_billing import DAY_MS
from tidemill_services.domain.usage_report import ReportQuestion, SessionUse, UsageRow, summed_up
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import ledger_entries, sessions


def make_report(tx: Transaction, account_id: str, question: ReportQuestion) -> tuple[list[UsageRow], UsageRow]:
    """Return an account's rows and their sum."""
    entry = ledger_entries.c
    session_id = func.substr(entry.subject, len("sessions/") + 1)
    sums = (
        select(
            (entry.from_ms // DAY_MS).label("day"),
            session_id.label("session_id"),
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
            entry.subject.startswith("sessions/"),
        )
        .group_by("day", "session_id")
        .subquery()
    )
    columns = (sessions.c.model, sessions.c.key_id, sessions.c.labels)
    query = select(sums, *columns).join(sessions, sessions.c.session_id == sums.c.session_id)
    uses = (
        SessionUse(
            day=int(row.day),
            session_id=row.session_id,
            model=row.model,
            key_id=row.key_id,
            labels=json.loads(row.labels),
            billed_seconds=int(row.billed_seconds),
            charged_microcredits=int(row.charged),
            refunded_microcredits=int(row.refunded),
            num_generations=int(row.num_generations),
            prompt_tokens=int(row.prompt_tokens),
            completion_tokens=int(row.completion_tokens),
        )
        for row in tx.connection.execute(query)
    )
    return summed_up(uses, question)
