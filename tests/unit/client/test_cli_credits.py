"""The commands that show and move money, in this process, against a mill in memory."""

import csv
import io
import json
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.mill import Mill, Refusal
from tests.unit.client.sealed_ledger import ACCOUNT, PRICE, SESSION, hashed
from tidemill.cli.amounts import parse_change
from tidemill.cli.csv_text import csv_text
from tidemill.cli.output import amount_text, credits_of
from tidemill.v1 import billing_pb2, session_pb2

MODEL = "models/tide-nano"


@pytest.mark.parametrize(
    ("microcredits", "shown"),
    [(0, "0.000000"), (1, "0.000001"), (-1, "-0.000001"), (1_500_000, "1.500000"), (-1_000_000, "-1.000000")],
)
def test_amounts_are_shown_exactly_also_below_zero(microcredits: int, shown: str) -> None:
    assert credits_of(microcredits) == f"{shown} credits"


@given(st.integers(-(10**18), 10**18))
def test_what_is_shown_is_read_as_the_same_amount(microcredits: int) -> None:
    assert parse_change(amount_text(microcredits)) == microcredits


def test_credits_are_granted_and_put_right(tidemill, mill: Mill) -> None:
    granted = tidemill("account", "grant", "ada", "5.25", "--reason", "Welcome")
    assert granted.stdout == "5.250000 credits were granted; accounts/ada has 5.250000 credits now.\n"
    taken = tidemill("account", "correct", "accounts/ada", "-.25", "--reason", "Too many")
    assert taken.stdout == "0.250000 credits were taken; accounts/ada has 5.000000 credits now.\n"
    added = json.loads(tidemill("account", "correct", "ada", "0.000001", "--reason", "x", "--json").stdout)
    assert (added["kind"], added["amount_microcredits"]) == ("correction", 1)
    assert [one.amount_microcredits for one in mill.requests["CorrectBalance"]] == [-250_000, 1]


def test_a_session_is_given_back_whole_or_in_part(tidemill, mill: Mill) -> None:
    whole = tidemill("account", "refund", "1", "--reason", "Sorry")
    assert whole.stdout.startswith("0.004200 credits of sessions/1 were given back; accounts/mine has ")
    tidemill("account", "refund", SESSION, "0.001", "--reason", "Sorry")
    assert [one.session for one in mill.requests["RefundCredits"]] == [SESSION, SESSION]
    assert mill.requests["RefundCredits"][1].amount_microcredits == 1_000


@pytest.mark.parametrize(
    "words",
    [
        ["account", "grant", "ada", "5"],
        ["account", "grant", "ada", "much", "--reason", "x"],
        ["account", "grant", "ada", "0.0000001", "--reason", "x"],
        ["account", "grant", "ada", "1e9", "--reason", "x"],
        ["account", "grant", "ada", "--", "-5", "--reason", "x"],
        ["account", "correct", "ada", "-5", "--why", "x"],
        ["account", "refund", "--reason", "x"],
        ["prices", "set", "tide-nano"],
        ["prices", "set", "tide-nano", "--withdraw"],
        ["prices", "set", "tide-nano", "--withdraw", "--account", "ada", "--per-second", "1"],
        ["usage", "--by", "week"],
        ["usage", "--by", "label="],
        ["usage", "--by", "label=a,label=b"],
        ["usage", "--since", "soon"],
        ["usage", "--format", "pdf"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_understood_is_wrong_usage(tidemill, mill: Mill, words: list[str]) -> None:
    assert tidemill(*words).exit_code == 2
    assert mill.metadata == []


def test_the_ledger_is_a_table_and_json(tidemill) -> None:
    lines = tidemill("account", "ledger", "--session", "1").stdout.splitlines()
    assert lines[0].split() == ["row", "when", "what", "credits", "balance", "held", "for", "why"]
    assert [line.split()[3] for line in lines[1:]] == ["hold", "session_charge", "session_charge", "release", "refund"]
    assert lines[2].split()[4:] == ["-0.003500", "9.996500", "0.206500", SESSION]
    assert lines[5].endswith("It \u201cstood\u201d.")
    rows = [json.loads(line) for line in tidemill("account", "ledger", "--json", "--limit", "3").stdout.splitlines()]
    assert [row["account_sequence"] for row in rows] == [1, 2, 3]
    assert rows[2]["usage_end_time"] == "2023-11-14T22:13:25Z"
    (only,) = tidemill("account", "ledger", "--kind", "refund", "--json").stdout.splitlines()
    assert json.loads(only)["amount_microcredits"] == 2 * PRICE


def test_an_account_shows_its_credits(tidemill, mill: Mill) -> None:
    mill.accounts[ACCOUNT].balance_microcredits = 12_500_000
    mill.accounts[ACCOUNT].held_microcredits = 210_000
    shown = dict(line.split(maxsplit=1) for line in tidemill("account", "show").stdout.splitlines())
    assert (shown["balance"], shown["held"]) == ("12.500000 credits", "0.210000 credits")
    assert "12.500000" in tidemill("account", "list").stdout
    assert json.loads(tidemill("account", "show", "--json").stdout)["held_microcredits"] == 210_000


def test_prices_are_listed_and_what_is_not_named_stays(tidemill, mill: Mill) -> None:
    header, only = tidemill("prices").stdout.splitlines()
    assert header.split()[:2] == ["model", "for"]
    assert only.split() == ["tide-nano", "everybody", "0.000700", "0.000000", "0.000000", "1", "its", "package"]
    done = tidemill("prices", "set", "tide-nano", "--per-second", "0.001", "--input", "20")
    assert done.stdout == "tide-nano costs 0.001000 credits a second for everybody (revision 2).\n"
    done = tidemill("prices", "set", MODEL, "--output", "30.5", "--account", "mine")
    assert done.stdout == "tide-nano costs 0.001000 credits a second for accounts/mine (revision 3).\n"
    price = mill.requests["SetPrice"][1].price
    assert (price.model, price.session_microcredits_per_second) == (MODEL, 1_000)
    assert (price.input_microcredits_per_million_tokens, price.output_microcredits_per_million_tokens) == (
        20_000_000, 30_500_000
    )  # fmt: skip
    tidemill("prices", "set", "tide-nano", "--per-second", "0.002")  # for everybody: not what the account has
    everybodys = mill.requests["SetPrice"][2].price
    assert (everybodys.input_microcredits_per_million_tokens, everybodys.output_microcredits_per_million_tokens) == (
        20_000_000, 0
    )  # fmt: skip
    withdrawn = tidemill("prices", "set", "tide-nano", "--account", "mine", "--withdraw")
    assert withdrawn.stdout == "tide-nano has no price of its own for accounts/mine any more.\n"
    listed = [json.loads(line)["revision"] for line in tidemill("prices", "--all", "--json").stdout.splitlines()]
    assert listed == [5, 4, 3, 2, 1]
    tidemill("prices", "set", "tide-nano", "--input", "1", "--account", "mine")
    assert mill.requests["SetPrice"][4].price.session_microcredits_per_second == 2_000  # the platform's holds again
    assert "withdrawn" in tidemill("prices", "--all", "-m", "tide-nano").stdout


def report(**fields: object) -> billing_pb2.UsageReport:
    row = billing_pb2.UsageRow(
        day="2026-11-21", model=MODEL, num_sessions=2, billed_seconds=8, charged_microcredits=8 * PRICE,
        refunded_microcredits=2 * PRICE, num_generations=4, prompt_tokens=50, completion_tokens=70, **fields,
    )  # fmt: skip
    found = billing_pb2.UsageReport(rows=[row], total=row)
    found.total.ClearField("day")
    found.start_time.FromSeconds(1_793_491_200)
    found.end_time.FromSeconds(1_795_000_000)
    return found


def test_usage_is_a_table_with_a_total(tidemill, mill: Mill) -> None:
    mill.usage = report()
    shown = tidemill("usage", "--since", "2026-11-01", "--until", "2026-11-22T12:00+02:00")
    header, row, total = shown.stdout.splitlines()
    assert header.split() == ["day", "model", "sessions", "seconds", "credits", "given", "back", "generations",
                              "tokens", "in", "tokens", "out"]  # fmt: skip
    assert row.split() == ["2026-11-21", "tide-nano", "2", "8", "0.005600", "0.001400", "4", "50", "70"]
    assert total.split() == ["total", "2", "8", "0.005600", "0.001400", "4", "50", "70"]
    assert shown.stderr == "From 2026-11-01 00:00:00Z to 2026-11-18 11:06:40Z, UTC.\n"
    (request,) = mill.requests["GetUsageReport"]
    assert request.start_time.ToJsonString() == "2026-11-01T00:00:00Z"
    assert request.end_time.ToJsonString() == "2026-11-22T10:00:00Z"


def test_usage_is_grouped_as_asked_for(tidemill, mill: Mill) -> None:
    mill.usage = report(label_value="ebb", api_key=f"{ACCOUNT}/keys/1")
    header, row, _ = tidemill("usage", "--by", "label=team,key", "--account", "ada").stdout.splitlines()
    assert header.split()[:3] == ["team", "key", "sessions"]
    assert row.split()[:2] == ["ebb", f"{ACCOUNT}/keys/1"]
    (request,) = mill.requests["GetUsageReport"]
    assert (list(request.group_by), request.label_key, request.account) == ([4, 3], "team", "accounts/ada")


def test_usage_is_one_json_object(tidemill, mill: Mill) -> None:
    mill.usage = report()
    for words in (["--json"], ["--format", "json"]):
        (line,) = tidemill("usage", *words).stdout.splitlines()
        found = json.loads(line)
        assert found["rows"][0]["charged_microcredits"] == found["total"]["charged_microcredits"] == 8 * PRICE
        assert found["start_time"] == "2026-11-01T00:00:00Z"


def test_a_refused_report_is_said_in_the_form_that_was_asked_for(tidemill, mill: Mill) -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND", "There is no such account.")
    mill.fail_next("GetUsageReport", refusal, refusal)
    assert json.loads(tidemill("usage", "--format", "json").stderr)["error"]["reason"] == "ACCOUNT_NOT_FOUND"
    assert tidemill("usage", "--format", "csv").stderr == "Error: There is no such account.\n"


def test_usage_is_csv_that_a_spreadsheet_does_not_run(tidemill, mill: Mill) -> None:
    mill.usage = report(label_value='=HYPERLINK("http://x","y")')
    shown = tidemill("usage", "--format", "csv", "--by", "label=team").stdout_bytes.decode()
    assert shown.startswith("day,model,api_key,label_value,num_sessions,billed_seconds,charged_microcredits,")
    assert shown.count("\r\n") == shown.count("\n") == 2
    header, row = csv.reader(io.StringIO(shown, newline=""))
    assert dict(zip(header, row, strict=True))["label_value"] == '\'=HYPERLINK("http://x","y")'
    assert row[4:] == ["2", "8", "5600", "1400", "4", "50", "70"]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "\xa0=1"])
def test_what_a_spreadsheet_could_run_gets_a_quote_before_it(text: str) -> None:
    _, (shown,) = csv.reader(io.StringIO(csv_text(["x"], [[text]]), newline=""))
    assert shown == f"'{text}"


@pytest.mark.parametrize("text", ["", "a", "a=b", 'say "x"', "a,b", "a\r\nb", "accounts/mine/keys/1"])
def test_other_texts_come_through_csv_as_they_are(text: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text(["x"], [[text, -5]]), newline=""))) == [["x"], [text, "-5"]]


def test_a_receipt_is_fetched_and_verified(tidemill, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    fetched = tidemill("receipt", "get", "1", "-o", str(file))
    assert (fetched.exit_code, fetched.stdout) == (0, "")
    assert fetched.stderr.startswith("sessions/1 cost 0.004200 credits for 6 seconds. Check it with ")
    assert tidemill("receipt", "get", "1").stdout == file.read_text()
    assert json.loads(tidemill("receipt", "get", "1", "--json").stdout) == json.loads(file.read_text())
    verified = tidemill("receipt", "verify", str(file))
    assert verified.exit_code == 0
    assert verified.stdout.splitlines()[-1] == "sessions/1 cost 0.004200 credits for 6 seconds. It holds."
    assert verified.stdout.count("ok  ") == 6
    found = json.loads(tidemill("receipt", "verify", str(file), "--json").stdout)
    assert (found["ok"], found["problem"], len(found["checks"])) == (True, "", 6)


def test_a_receipt_that_was_changed_ends_with_1_and_says_why(tidemill, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    tidemill("receipt", "get", "1", "-o", str(file))
    file.write_text(file.read_text().replace('"cost_microcredits": "4200"', '"cost_microcredits": "4100"'))
    verified = tidemill("receipt", "verify", str(file))
    assert verified.exit_code == 1
    problem = "The rows add up to 4200 microcredits, and the receipt says 4100."
    assert verified.stdout.splitlines()[-1] == f"It does not hold: {problem}"
    as_json = tidemill("receipt", "verify", str(file), "--json")
    assert as_json.exit_code == 1
    assert (json.loads(as_json.stdout)["ok"], json.loads(as_json.stdout)["problem"]) == (False, problem)


def test_a_receipt_is_compared_with_the_servers_ledger(tidemill, mill: Mill, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    tidemill("receipt", "get", "1", "-o", str(file))
    same = tidemill("receipt", "verify", str(file), "--server")
    assert same.exit_code == 0
    assert f"ok  The ledger at {mill.target} has the same blocks." in same.stdout
    mill.ledger.blocks[1].seal_time.nanos += 1_000_000
    hashed(mill.ledger.blocks[1])
    another = tidemill("receipt", "verify", str(file), "--server")
    assert (another.exit_code, another.stdout.splitlines()[-1]) == (
        1, "It does not hold: The server's block 2 is another one."
    )  # fmt: skip
    del mill.ledger.blocks[1:]
    gone = tidemill("receipt", "verify", str(file), "--server")
    assert (gone.exit_code, gone.stdout.splitlines()[-1]) == (
        1, "It does not hold: The server's ledger has no block 2."
    )  # fmt: skip


def test_a_receipt_is_verified_where_no_server_is(tidemill, mill: Mill, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "receipt.json"
    tidemill("receipt", "get", "1", "-o", str(file))
    mill.stop()
    monkeypatch.delenv("TIDEMILL_API_KEY")
    assert tidemill("receipt", "verify", str(file)).exit_code == 0


@pytest.mark.parametrize("content", [None, "", "[" * 100_000, '{"colour": "\\u001b[2J"}'])
def test_what_is_no_receipt_is_refused_in_a_sentence(tidemill, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "receipt.json"
    if content is not None:
        file.write_text(content)
    refused = tidemill("receipt", "verify", str(file))
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    as_json = tidemill("receipt", "verify", str(file), "--json")
    assert json.loads(as_json.stderr)["error"]["reason"] == "RECEIPT_UNREADABLE"


def test_a_watch_warns_of_the_accounts_credits(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    budget = session_pb2.Session.END_REASON_BUDGET
    mill.meter = [
        session_pb2.SessionMeter(
            time_to_end=Duration(seconds=60),
            end_reason=budget,
            warnings=[session_pb2.SessionWarning(end_reason=budget, percent=80)],
        ),
        session_pb2.SessionMeter(),
    ]
    line = tidemill("session", "watch").stdout.splitlines()[0]
    assert line.endswith("ends in 1m (the account's credits) · ! 80 % of budget")
