"""What `tidemill admin verify-billing` says, on both databases, while a server has them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from google.protobuf import json_format
from sqlalchemy import text
from typer.testing import CliRunner

from tests.contract.store.books import drop_triggers, make_books, seal
from tests.contract.store.conftest import Customer, customer, database
from tests.databases import database_url, postgres_server
from tidemill_services.admin_commands import admin
from tidemill_services.api.billing_messages import receipt_message
from tidemill_services.store import receipts
from tidemill_services.store.database import Transaction

__all__ = ["customer", "database", "database_url", "postgres_server"]

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    settings = ("--data-dir", str(tmp_path / "data"), "--database", database_url)
    return lambda *arguments: CliRunner().invoke(admin, ["verify-billing", *map(str, arguments), *settings])


@pytest.fixture
async def receipt(customer: Customer, tmp_path: Path) -> Path:
    """A receipt of a session that has ended, in books of which a part is not sealed."""
    session, _ = await make_books(customer)
    made = await customer.database.read(receipts.make_receipt, customer.account_id, session.session_id)
    file = tmp_path / "receipt.json"
    file.write_text(json_format.MessageToJson(receipt_message(made), preserving_proto_field_name=True))
    return file


async def test_books_that_fit_are_told_with_the_hash_to_keep(customer: Customer, run: Run, receipt: Path):
    told = run("--receipt", receipt)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("The books fit: ")
    kept = told.stdout.split("--block-hash ")[1].strip()
    await seal(customer.database)
    found = json.loads(run("--json", "--block-hash", kept, "--receipt", receipt).stdout)
    assert (found["ok"], found["problems"], found["blocks"], found["sessions"]) == (True, [], 4, 2)
    assert found["rows"] == found["sealed_rows"]
    assert found["last_block"]["number"] == 4


async def test_what_does_not_fit_is_told_with_where_it_stands(customer: Customer, run: Run, receipt: Path):
    def forge(tx: Transaction) -> None:
        drop_triggers(tx)
        tx.connection.execute(text("UPDATE ledger_entries SET reason = 'none' WHERE account_sequence = 2"))

    await customer.database.write(forge)
    told = run()
    assert told.exit_code == 1
    assert "Block 2 does not fit its rows" in told.stdout
    found = json.loads(run("--json", "--receipt", receipt).stdout)
    assert not found["ok"]
    first = found["problems"][0]
    assert (first["kind"], first["account"], first["account_sequence"]) == ("KEPT_ROW", "accounts/first", 2)


def test_a_receipt_that_does_not_hold_by_itself_accuses_nobody(run: Run, receipt: Path, tmp_path: Path):
    receipt.write_text(receipt.read_text().replace("accounts/first", "accounts/other", 1))
    told = run("--receipt", receipt)
    assert (told.exit_code, "proves nothing, for it does not hold by itself" in told.stderr) == (1, True)
    assert run("--receipt", tmp_path / "none").exit_code == 1


@pytest.mark.parametrize("kept", ["1", "1:abcd", f"0:{'0' * 64}", f"x:{'0' * 64}", f"1:{'g' * 64}"])
def test_a_hash_that_is_none_is_refused(kept: str):
    told = CliRunner().invoke(admin, ["verify-billing", "--block-hash", kept])
    assert (told.exit_code, "64 hex digits" in told.stderr) == (2, True)
