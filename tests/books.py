"""Proves the books that a server left behind."""

from pathlib import Path

from tidemill_services.database_commands import opened
from tidemill_services.store.billing_proof import prove_billing


def assert_books_fit(data_dir: Path, database: str | None = None) -> None:
    """Rows, blocks, balances, totals and sessions must fit each other, whatever a test did to the server."""
    with opened("verify-billing", data_dir, database) as (_, backend), backend.snapshot() as connection:
        proof = prove_billing(connection)
    assert not proof.misfits, [misfit.sentence for misfit in proof.misfits.values()]
