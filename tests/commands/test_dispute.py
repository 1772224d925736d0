"""`dispute` puts everything about a bet into one file that the verifier accepts."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.verifier.cli import main as verifier
from predictu_dispatch.verifier.records import Verdict
from tests.support.command_line import CommandLine, one_line
from tests.support.disputes import (
    BET,
    PLAYER,
    WITNESS,
    Disputes,
    bundle_of,
    content_of,
    names_in,
    policy,
    proved,
    sealed,
    signing_key,
    verified,
)
from tests.support.harness import OPERATOR, Harness, delivered, reaped, retried
from tests.support.histories import HistoryBuilder, make_months
from tests.support.postgres import Database
from tests.support.retention import LONG_AGO, run_retention
from tests.support.sealing import ORIGIN, SEED, open_sealer

pytestmark = pytest.mark.usefixtures("_eighty_columns")


@pytest.fixture
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


async def test_a_whole_bet_is_proved(disputes: Disputes, auditor: CommandLine, database: Database) -> None:
    placement, win = await disputes.whole_bet()
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        await disputes.store_checkpoint()
        await disputes.cosign(time_s=1_796_000_000)
        path = await bundle_of(auditor)
    report = verified(path)
    folders = [f"attempts/BET_MAKE_{placement}_000{n}" for n in (1, 2)] + [
        f"attempts/BET_WIN_{win}_000{n}" for n in (1, 2)
    ]
    for folder in folders:
        texts = [each.text for each in report.statements if each.about == folder and each.verdict is Verdict.PROVED]
        # Record, request, answer, signature, key, body, time.
        assert len(texts) == 7, texts
        assert f"{WITNESS} cosigned the log" in texts[-1]
    assert sum("The intervention retry by ann@web-1" in text for text in proved(report)) == 1
    names = names_in(path)
    assert {name.partition("/")[0] for name in names} == {
        *("README.txt", "attempts", "bundle.json", "interventions", "keys", "policy.txt", "start", "story.txt")
    }
    story = content_of(path, "story.txt").decode()
    assert max(map(len, story.splitlines())) <= 80 or all(
        len(line.split()) == 1 for line in story.splitlines() if len(line) > 80
    )
    told = one_line(story)
    for phrase in (
        f"Bet {BET} of operator {OPERATOR} is closed",
        f"by player {PLAYER}",
        "debited 5.00 EUR at",
        f"BET_MAKE {placement} is delivered",
        "attempt 1 by host-1",
        "the operator answered HTTP 503",
        "retried by ann@web-1",
        f"in {folders[0]}",
    ):
        assert phrase in told, (phrase, told)
    readme = content_of(path, "README.txt").decode()
    assert "python verifier bundle.zip" in readme
    assert max(map(len, readme.splitlines())) <= 80


async def test_the_same_rows_give_the_same_bytes_that_only_the_owner_reads(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    await disputes.whole_bet()
    await sealed(database)
    first, second = await bundle_of(auditor, "1.zip"), await bundle_of(auditor, "2.zip")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o777 == 0o600


async def test_without_a_policy_the_other_side_gives_its_own(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    """A host that has only a DSN."""
    await disputes.whole_bet()
    await sealed(database)
    path = auditor.folder / "bundle.zip"
    code, text, _ = await auditor.run("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 0
    assert "It has no policy.txt, because this host cannot read [audit] key_file" in one_line(text)
    assert "policy.txt" not in names_in(path)
    verified(path)
    assert verifier([str(path)]) == 0


async def test_the_policy_is_that_of_the_configuration(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    await disputes.whole_bet()
    await sealed(database)
    key = signing_key(auditor.folder, "audit.pem")
    text = auditor.config.read_text("utf-8")
    auditor.config.write_text(f'{text}[audit]\norigin = "{ORIGIN}"\nkey_file = "audit.pem"\n', "utf-8")
    path = auditor.folder / "bundle.zip"
    code, _, _ = await auditor.run("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 0
    vkey = VerifierKey(f"{ORIGIN}/{OPERATOR}", key.ed25519_public_key)
    assert content_of(path, "policy.txt").decode() == f"log {vkey}\nquorum none\n"
    # It is not the key that sealed here.
    assert verifier([str(path)]) == 1
    assert key.ed25519_seed != SEED


async def test_what_is_not_sealed_yet_is_said(disputes: Disputes, auditor: CommandLine, database: Database) -> None:
    await sealed(database)
    await disputes.whole_bet()
    path = auditor.folder / "bundle.zip"
    given = ("--policy", str(auditor.folder / "policy.txt"), "-o", str(path))
    code, text, _ = await auditor.run("dispute", "--bet", OPERATOR, BET, *given)
    assert code == 0
    assert "Not in the log yet: attempt 1 of BET_MAKE" in one_line(text)
    assert "then run it again" in one_line(text)
    report = verified(path)
    assert any(
        each.text == "The record is not in the log yet; make the bundle again later." for each in report.statements
    )
    # The signatures are proved anyway.
    assert sum("signed the body" in text for text in proved(report)) == 4
    await sealed(database)
    assert sum("is entry" in text for text in proved(verified(await bundle_of(auditor, "2.zip")))) == 5


async def test_a_callback_that_is_being_sent_may_be_applied(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    await sealed(database)
    await harness.lease(await disputes.place())
    path = auditor.folder / "bundle.zip"
    code, text, _ = await auditor.run("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 0
    assert "1 callback is not final yet; run it again later for the rest." in one_line(text)
    story = content_of(path, "story.txt").decode()
    assert "it is being sent now" in story
    assert "the operator has not applied it" not in story


async def test_the_first_cosigned_checkpoint_gives_the_time(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        placement = await disputes.place()
        await disputes.attempt(placement)
        await sealer.seal_all()
        await disputes.store_checkpoint()
        await disputes.cosign(time_s=1_796_000_000)
        await disputes.whole_bet("b-2")
        await sealer.seal_all()
        await disputes.store_checkpoint()
        await disputes.cosign(time_s=1_796_100_000)
    path = await bundle_of(auditor)
    assert f"attempts/BET_MAKE_{placement}_0001/entry.cosigned.tlog-proof" in names_in(path)
    (text,) = [text for text in proved(verified(path, policy(quorum="w1"))) if "has not changed" in text]
    assert "2026-11-30T00:53:20Z" in text


async def test_a_token_that_may_be_valid_is_left_out(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    placement = await disputes.place()
    await disputes.attempt(placement, ago=timedelta(seconds=2))
    await sealed(database)
    path = auditor.folder / "bundle.zip"
    given = ("--policy", str(auditor.folder / "policy.txt"), "-o", str(path))
    code, text, _ = await auditor.run("dispute", "--bet", OPERATOR, BET, *given)
    assert code == 0
    assert "1 token left out" in one_line(text)
    assert not any(name.endswith("token.jwt") for name in names_in(path))
    report = verified(path)
    assert any("token.jwt is left out: the token may still be valid" in each.text for each in report.statements)


async def test_rows_without_token_or_answer_and_late_answers(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    """As an older release, a crash and a slow operator leave them."""
    placement = await disputes.place()
    older: dict[str, Any] = {"token_signature": None, "peer": None, "peer_certificate_sha256": None}
    await disputes.attempt(placement, retried, reason="timeout", evidence="unanswered", **older)
    lease = await harness.lease(placement)
    await harness.settle(reaped(lease))
    late = delivered(lease, **await disputes.sent(lease, b'{"status":"OK"}'))
    await harness.settle(late)
    await sealed(database)
    path = await bundle_of(auditor)
    report = verified(path)
    assert any("No token was kept" in each.text for each in report.statements)
    assert any("_0002_late_" in name for name in names_in(path))
    assert "late answer, changes nothing" in one_line(content_of(path, "story.txt").decode())


PLAYERS = {
    "plain": "player-4711",
    "an address": "ann.o'neill+bets@casino.example",
    "beyond ASCII": "Zoë/Müller 12",
    "quotes": 'he said "no"\\',
    "short": "p1",
}


@pytest.mark.parametrize("player_id", PLAYERS.values(), ids=PLAYERS)
async def test_without_the_player_no_byte_names_it(
    player_id: str, disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    placement = await disputes.place(player_id=player_id)
    echoed = [
        player_id.encode(),
        json.dumps({"status": "OK", "player": player_id}).encode(),
        json.dumps({"p": "".join(f"\\u{ord(each):04x}" for each in player_id)}).replace("\\\\u", "\\u").encode(),
        f"https://x.example/?player={quote(player_id)}".encode(),
        base64.b64encode(b'{"sub":"' + player_id.encode() + b'"}') if len(player_id) > 5 else player_id.encode(),
    ]
    for answer in echoed:
        await disputes.attempt(
            placement, retried, answer=answer, reason="http_503", error=f"bad answer for {player_id}"
        )
    await disputes.attempt(placement, answer=b'{"status":"OK"}', operator_transaction_id=f"tx-{player_id}")
    win = await disputes.harness.end("BET_WIN", BET)
    await disputes.attempt(win, delivered)
    reason = f"{player_id} called us"
    await disputes.harness.owner.execute(
        "insert into predictu_dispatch.intervention (operator_id, request_id, action, reason, done_by, before, after)"
        " select $1, $2, 'resolve', $3, 'ann', to_jsonb(c), to_jsonb(c) from predictu_dispatch.callback c"
        "  where request_id = $2",
        *(OPERATOR, win, reason),
    )
    await sealed(database)
    path = await bundle_of(auditor, "bundle.zip", "--without-player")
    report = verified(path)
    assert sum("a body that is left out" in text for text in proved(report)) == len(echoed) + 2
    content = path.read_bytes()
    forms = [player_id, json.dumps(player_id)[1:-1], quote(player_id), quote(player_id, safe="")]
    if len(player_id) >= 8:
        for form in forms:
            assert form.encode() not in content
        for before in range(3):
            inner = base64.b64encode(b"x" * before + player_id.encode())[4:-4]
            assert inner not in content
    free = [name for name in names_in(path) if name.endswith((".txt", ".body")) or "headers" in name]
    for name in free:
        if name not in ("README.txt", "policy.txt"):
            # A random key id may have two characters in common with a player.
            assert player_id not in content_of(path, name).decode().replace(disputes.key.kid, ""), name
    assert not any(name.endswith("request.body") for name in names_in(path))
    # Of the answers, the one that does not name the player is there.
    assert [name for name in names_in(path) if name.endswith("response.body")] == [
        f"attempts/BET_MAKE_{placement}_0006/response.body",
        f"attempts/BET_WIN_{win}_0001/response.body",
    ]
    assert not any(name.endswith("reason.txt") for name in names_in(path))
    with_it = await bundle_of(auditor, "with.zip")
    assert any(content_of(with_it, name) == reason.encode() for name in names_in(with_it) if "reason" in name)
    assert len(names_in(with_it)) > len(names_in(path))


@pytest.mark.parametrize("where", ["key id", "UUID", "time"])
async def test_a_short_player_id_that_is_in_our_own_ids_by_chance_refuses_no_bundle(
    where: str, disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    request_id = uuid4()
    player_id = {"key id": disputes.key.kid[20:27], "UUID": str(request_id)[:7], "time": f"{datetime.now(UTC):%Y-%m}"}[
        where
    ]
    await disputes.attempt(await disputes.place(player_id=player_id, request_id=request_id))
    await sealed(database)
    path = await bundle_of(auditor, "bundle.zip", "--without-player")
    assert player_id in content_of(path, "story.txt").decode()
    assert f"player {player_id}" in content_of(await bundle_of(auditor, "with.zip"), "story.txt").decode()


async def test_a_bet_whose_id_names_the_player_has_no_bundle_without_it(
    disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    await disputes.attempt(await disputes.place(f"bet-of-{PLAYER}"))
    await sealed(database)
    path = auditor.folder / "bundle.zip"
    code, _, stderr = await auditor.run(
        "dispute", "--bet", OPERATOR, f"bet-of-{PLAYER}", "--without-player", "-o", str(path)
    )
    assert code == 1
    assert "names the player, and it cannot be left out" in stderr
    assert not path.exists()


async def test_json_says_what_is_in_it(disputes: Disputes, auditor: CommandLine, database: Database) -> None:
    await disputes.whole_bet()
    await sealed(database)
    path = auditor.folder / "bundle.zip"
    code, found = await auditor.run_json("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 0
    assert found == {
        "file": str(path),
        "has_policy": False,
        "bytes": path.stat().st_size,
        "files": len(names_in(path)),
        "attempts": 4,
        "unfinished": 0,
        "unsealed": [],
        "uncosigned": 6,
        "young_tokens": 0,
        "withheld": 0,
    }


async def test_a_retired_key_and_another_one_stay_valid(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    placement = await disputes.place()
    await disputes.attempt(placement)
    await sealed(database)
    before = await bundle_of(auditor, "before.zip")
    await harness.owner.execute(
        "update predictu_dispatch.signing_key set retired_at = now(), retired_id = gen_random_uuid(),"
        " retired_in = pg_current_xact_id()::text::bigint"
    )
    await sealed(database)
    verified(before)
    after = await bundle_of(auditor, "after.zip")
    assert f"keys/{disputes.key.kid}/retired.tlog-proof" in names_in(after)
    assert any(", retired at 20" in text for text in proved(verified(after)))


async def test_the_retention_of_others_changes_no_bundle(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    await make_months(harness.owner)
    histories = HistoryBuilder(harness)
    old = await histories.make("won", LONG_AGO)
    await disputes.whole_bet()
    await sealed(database)
    before = await bundle_of(auditor, "before.zip")
    result = await run_retention(database)
    assert (result.is_complete, result.bets) == (True, 1)
    await sealed(database)
    after = await bundle_of(auditor, "after.zip")
    for path in (before, after):
        assert sum("is entry" in text for text in proved(verified(path))) == 5
    assert old.bet_id
    code, _, stderr = await auditor.run("dispute", "--bet", OPERATOR, old.bet_id)
    assert code == 1
    assert "retention removed it at" in stderr


async def test_rows_from_before_an_upgrade_are_in_the_log_and_its_start_says_so(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    """They have neither a transaction nor a token."""
    placement = await disputes.place()
    older: dict[str, Any] = {"token_signature": None, "peer": None, "peer_certificate_sha256": None}
    await disputes.attempt(placement, **older)
    await harness.owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
    await harness.owner.execute("update predictu_dispatch.attempt_record set written_in = null")
    await harness.owner.execute("alter table predictu_dispatch.attempt_record enable trigger all")
    await sealed(database)
    path = await bundle_of(auditor)
    report = verified(path)
    assert any("1 attempt and 0 interventions were stored before" in text for text in proved(report))
    assert sum("is entry" in text for text in proved(report)) == 1
    assert any("No token was kept" in each.text for each in report.statements)
    assert not any(name.startswith("keys/") for name in names_in(path))


async def test_a_bet_with_400_attempts_is_one_file(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    placement = await disputes.place()
    await disputes.attempt(placement, answer=b"x" * 60_000)
    await harness.owner.execute("set session_replication_role = replica")
    columns = await harness.owner.fetchval(
        "select string_agg(attname, ', ') from pg_attribute"
        " where attrelid = 'predictu_dispatch.attempt_record'::regclass and attnum > 0"
        " and not attisdropped and attname not in ('attempt', 'report_id', 'written_in')"
    )
    await harness.owner.execute(
        f"insert into predictu_dispatch.attempt_record (attempt, report_id, {columns})"  # noqa: S608 - names of columns
        f" select n, gen_random_uuid(), {columns} from predictu_dispatch.attempt_record, generate_series(2, 400) n"
    )
    await sealed(database)
    path = await bundle_of(auditor)
    assert path.stat().st_size < 30_000_000
    assert sum("signed the body" in text for text in proved(verified(path))) == 400
