"""From a bet's placement to a verified bundle: a real daemon, the reference operator, a witness."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.verifier.records import Verdict
from tests.reference_operator.client import KEY, Operator, running
from tests.support.command_line import command_line_for, one_line
from tests.support.daemons import Fleet, until
from tests.support.disputes import content_of, names_in, proved, verified
from tests.support.harness import OPERATOR, Harness, know_operators
from tests.support.postgres import Database

ORIGIN = "audit.predictu.example"
BET = {"market_id": "m-1", "outcome": "yes", "odds": 2, "shares": 10, "price": 50}
STAKE = {"player_id": "player-1", "currency": "EUR", "amount": 2500, "bet_id": "b-1"}


@pytest.fixture
def vkey(tmp_path: Path) -> str:
    """The log's key, which the other side got beforehand."""
    key = create_key_file(tmp_path / "audit.pem", "EdDSA")
    (tmp_path / "key.pem").write_bytes(KEY.as_pem(private=True))
    (tmp_path / "key.pem").chmod(0o600)
    return str(VerifierKey(f"{ORIGIN}/{OPERATOR}", key.ed25519_public_key))


@pytest.fixture
async def operator(tmp_path: Path, vkey: str) -> AsyncIterator[Operator]:
    async with running(tmp_path, "--log-vkey", vkey) as operator:
        yield operator


@pytest.fixture
async def fleet(tmp_path: Path, database: Database, operator: Operator) -> AsyncIterator[Fleet]:
    async with aiohttp.ClientSession() as session:
        fleet = Fleet(folder=tmp_path, dsn=database.dispatcher, session=session)
        fleet.write_operator(operator.url)
        try:
            yield fleet
        finally:
            fleet.end()


async def test_a_delivered_bet_is_proved_to_the_operator(  # noqa: PLR0917 - fixtures
    harness: Harness,
    database: Database,
    fleet: Fleet,
    operator: Operator,
    vkey: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await know_operators(harness.daemon, interactive_deadline_s=60.0)
    witness = {"name": "them", "vkey": operator.witness_vkey, "url": operator.url.removesuffix("/predictu")}
    audit = {"origin": ORIGIN, "key_file": "audit.pem", "seal_s": 0.2, "witness": [witness]}
    daemon = await fleet.start("host-1", audit=audit)
    # The key is sealed before it signs, as it is where a log is not new.
    await until("the key is in the log", lambda: has_entries(harness, 2))
    await deliver(harness, "BET_MAKE", {**STAKE, "bet": BET})
    await deliver(harness, "BET_WIN", {**STAKE, "amount": 5000})
    await until("a witness cosigned all", lambda: all_is_cosigned(harness))
    daemon.terminate()
    await daemon.exited()
    await let_tokens_expire(harness, monkeypatch)

    (tmp_path / "dispatcher.toml").write_text("")
    (tmp_path / "policy.txt").write_text(f"log {vkey}\nwitness them {operator.witness_vkey}\nquorum them\n")
    auditor = command_line_for(tmp_path, database.auditor)
    path = tmp_path / "bundle.zip"
    given = ("--policy", str(tmp_path / "policy.txt"), "-o", str(path))
    code, text, stderr = await auditor.run("dispute", "--bet", OPERATOR, "b-1", *given)
    assert (code, stderr) == (0, "")
    assert "2 attempts" in text
    assert "left out" not in text
    report = verified(path, (tmp_path / "policy.txt").read_bytes())
    texts = one_line(" ".join(proved(report)))
    assert texts.count("signed the body in request.body") == 2
    assert texts.count(f"{operator.witness_vkey.partition('+')[0]} cosigned the log") == 2
    assert texts.count("precedes this record's") == 2
    (answer, _) = sorted(name for name in names_in(path) if name.endswith("response.body"))
    assert json.loads(content_of(path, answer)) == {
        "status": "OK",
        "balance": 997_500,
        "transaction_id": json.loads(content_of(path, answer))["transaction_id"],
    }
    recorded = [each.text for each in report.statements if each.verdict is Verdict.RECORD and "Sent to" in each.text]
    assert all(f"at {operator.url.split('/')[2]}" in each for each in recorded)
    check_elsewhere(path, tmp_path / "policy.txt")


def check_elsewhere(bundle: Path, policy: Path) -> None:
    """The folder alone, in another process."""
    away = bundle.parent / "away"
    shutil.copytree(Path(__file__).parents[2] / "predictu_dispatch" / "verifier", away / "verifier")
    run = subprocess.run(
        [sys.executable, "verifier", str(bundle), "--policy", str(policy)],
        cwd=away,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("Result: nothing is contradicted, with your policy.\n")


async def deliver(harness: Harness, method: str, params: dict[str, object]) -> None:
    request_id = await harness.producer.fetchval(
        "select predictu_dispatch.enqueue_callback($1, $2, $3::text::jsonb)", OPERATOR, method, json.dumps(params)
    )

    async def is_delivered() -> bool:
        return await harness.state(request_id) == "delivered"

    await until(f"{method} is delivered", is_delivered)


async def has_entries(harness: Harness, count: int) -> bool:
    size = await harness.owner.fetchval(
        "select size from predictu_dispatch.audit_head where operator_id = $1", OPERATOR
    )
    return (size or 0) >= count


async def all_is_cosigned(harness: Harness) -> bool:
    """True if a cosigned checkpoint has both attempts and the key."""
    await harness.owner.execute(
        "insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)"
        " select operator_id, size, checkpoint from predictu_dispatch.audit_head where operator_id = $1"
        " on conflict do nothing",
        OPERATOR,
    )
    is_so: bool = await harness.owner.fetchval(
        "select coalesce(max(k.size), 0) >= 2 + (select count(*) from predictu_dispatch.attempt)"
        "       and max(k.size) = (select size from predictu_dispatch.audit_head where operator_id = $1)"
        "  from predictu_dispatch.audit_cosignature k where k.operator_id = $1",
        OPERATOR,
    )
    return is_so


async def let_tokens_expire(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """token_of() and the command see a clock that is an hour ahead."""
    monkeypatch.setattr("predictu_dispatch.evidence.bundle.READABLE_AFTER_S", -3600.0)
    definition: str = await harness.owner.fetchval("select pg_get_functiondef('predictu_dispatch.token_of'::regproc)")
    later = timedelta(hours=1)
    for clock in ("clock_timestamp()", "now()", "statement_timestamp()"):
        definition = definition.replace(clock, f"({clock} + interval '{int(later.total_seconds())} seconds')")
    await harness.owner.execute(definition)
