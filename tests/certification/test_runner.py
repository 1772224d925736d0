"""How a run is played: in which order, what it refuses, and when it stops."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from predictu_dispatch.certification import runner
from predictu_dispatch.certification.journal import RunRefusedError
from predictu_dispatch.certification.result import ScenarioResult
from predictu_dispatch.certification.runner import play
from predictu_dispatch.certification.scenario import NEED_TEXTS, Group, Need, ScenarioVerdict
from predictu_dispatch.certification.scenarios import ALL
from predictu_dispatch.certification.schedule import phases, required_money
from predictu_dispatch.certification.steps import AFTER, BEFORE, RESUMED, AboveBalance, Pause, Read, Send
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import StatusesSettings
from tests.certification.mutants import changes_of
from tests.certification.sandbox import BALANCE, PLAYERS, SHORT, UNTOUCHED, changed_operator
from tests.certification.small_scenarios import BROKEN, ENDED, PAUSED, SMALL, STAKE, debit, end, small

PING = replace(small("connection-ping", Send(name="ping", method=Method.PING)), group=Group.CONNECTION, players=())


async def test_others_are_played_during_a_pause_and_balances_are_read_around_it(tmp_path: Path) -> None:
    ended: list[str] = []
    paused = replace(
        PAUSED, steps=(debit("long"), Read(name="debited"), Pause(seconds=0.5), end("long", Method.BET_LOSE))
    )
    async with changed_operator(tmp_path) as sandbox:
        result = await play(
            sandbox.target(),
            [ENDED, paused, PING],
            tmp_path / "run",
            run="run",
            on_result=lambda each: ended.append(each.scenario.id),
        )
    assert ended == [PING.id, ENDED.id, paused.id]
    assert [each.scenario.id for each in result.results] == [ENDED.id, paused.id, PING.id]
    assert all(each.verdict is ScenarioVerdict.PASSED for each in result.results)
    observed = result.results[1].observed
    assert observed is not None
    # Player 1 won 7.50 meanwhile; what ENDED left open of player 2 was rolled back by then.
    assert observed.balances == {
        BEFORE: {0: BALANCE, 1: BALANCE},
        "debited": {0: BALANCE - STAKE, 1: BALANCE},
        RESUMED: {0: BALANCE - STAKE + 750, 1: BALANCE - STAKE},
        AFTER: {0: BALANCE - STAKE + 750, 1: BALANCE - STAKE},
    }
    assert result.requests_sent == sum('"entry":"request"' in line for line in _lines(tmp_path))


async def test_a_run_that_takes_too_long_is_stopped_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RUN_S_MAX", 0.6)
    endless = replace(PAUSED, steps=(debit("long"), Pause(seconds=600)))
    async with changed_operator(tmp_path) as sandbox:
        result = await play(sandbox.target(), [endless], tmp_path / "run", run="run")
        assert sandbox.balances() == UNTOUCHED
    assert result.stopped.startswith("it took more than 0.01 minutes")
    assert [each.verdict for each in result.results] == [ScenarioVerdict.SKIPPED]


def _lines(folder: Path) -> list[str]:
    return (folder / "run" / "journal.ndjson").read_text(encoding="utf-8").splitlines()


def test_what_only_reads_is_played_ahead_of_the_first_debit() -> None:
    connection, others, ledger = phases(ALL)
    assert {one.group for one in connection} == {Group.CONNECTION}
    assert [one.id for one in others[:2]] == ["money-balance", "repetition-after-70-s"]
    assert {one.group for one in ledger} == {Group.LEDGER}


async def test_a_scenario_whose_money_an_earlier_one_took_is_not_played(tmp_path: Path) -> None:
    def take(_: ScenarioResult) -> None:
        with closing(sqlite3.connect(tmp_path / "wallet.db")) as wallet, wallet:
            wallet.execute("update players set balance = ? where player_id = ?", (STAKE - 1, PLAYERS[0]))

    scenarios = [PING, small("small-two", debit("a"))]
    async with changed_operator(tmp_path) as sandbox:
        result = await play(sandbox.target(), scenarios, tmp_path / "run", run="run", on_result=take, patience=SHORT)
    first, second = result.results
    assert (first.verdict, second.verdict) == (ScenarioVerdict.PASSED, ScenarioVerdict.FAILED)
    (finding,) = second.findings
    assert finding.is_obstacle
    assert finding.observed == f"player {PLAYERS[0]} has 4.99 EUR"
    assert second.observed is not None
    assert not second.observed.sent


async def test_the_journal_has_no_token_and_no_key(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as sandbox:
        await play(sandbox.target(), SMALL, tmp_path / "run", run="run")
        text = "\n".join(_lines(tmp_path))
        # A token begins with the header's {"alg" in base64url.
        assert "eyJ" not in text
        assert sandbox.key_file.read_text(encoding="utf-8").splitlines()[1] not in text


async def test_what_is_needed_and_missing_is_the_reason_of_a_skipped_scenario(tmp_path: Path) -> None:
    two = replace(ENDED, needs=frozenset({Need.TWO_PLAYERS}))
    tls = replace(BROKEN, needs=frozenset({Need.TLS, Need.NEXT_KEY}))
    async with changed_operator(tmp_path) as sandbox:
        target = replace(sandbox.target(), players=PLAYERS[:1], next_key=None)
        result = await play(target, [two, tls, PAUSED], tmp_path / "run", run="run")
    skipped = [each.reason for each in result.results]
    assert skipped == [NEED_TEXTS[Need.TWO_PLAYERS], f"{NEED_TEXTS[Need.NEXT_KEY]}; {NEED_TEXTS[Need.TLS]}", ""]


async def test_a_player_with_too_little_money_is_refused_before_the_first_debit(tmp_path: Path) -> None:
    large = small("small-large", replace(debit("a"), amount=BALANCE + 1))
    async with changed_operator(tmp_path) as sandbox:
        with pytest.raises(RunRefusedError, match=r"player player-1 has 100\.00 EUR; the scenarios need 100\.01 EUR"):
            await play(sandbox.target(), [PING, large], tmp_path / "run", run="run")
        unknown = replace(sandbox.target(), players=("nobody",))
        with pytest.raises(RunRefusedError, match=r"player nobody: .* BALANCE with status PLAYER_NOT_FOUND"):
            await play(unknown, [PING, ENDED], tmp_path / "other", run="other")


def test_the_required_money_is_what_is_lost_what_is_beside_and_the_largest_scenario() -> None:
    beside = small("small-beside", debit("a"), Pause(seconds=1), end("a", Method.BET_WIN, 100))
    # Lost: 5.00 by player 2, 4.00 by the sale, 5.00 of 100; stakes beside: 2 times 5.00.
    assert dict(required_money([ENDED, PAUSED, beside], 2)) == {0: 400 + 400 + 500 + 500 + 1000, 1: 500 + 1000}


async def test_a_wallet_that_moves_more_than_was_sent_stops_the_run(tmp_path: Path) -> None:
    async with changed_operator(tmp_path, changes_of("subunits-taken-for-units")) as sandbox:
        one = small("small-one", replace(debit("a"), amount=20))
        result = await play(sandbox.target(), [PING, one, ENDED], tmp_path / "run", run="run")
        _, failed, skipped = result.results
        assert failed.verdict is ScenarioVerdict.FAILED
        (finding,) = failed.findings
        assert finding.expected == "the scenario moves the balance of player player-1 by at most 0.20 EUR"
        assert finding.observed == "player player-1 has 20.00 EUR less than before it"
        assert result.stopped == "small-one moved the balance of player player-1 by more than it sent"
        assert (skipped.verdict, skipped.reason) == (ScenarioVerdict.SKIPPED, f"the run was stopped: {result.stopped}")
        assert sandbox.balances() == UNTOUCHED


async def test_an_operator_that_refuses_every_token_stops_the_run_before_the_first_debit(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as sandbox:
        assert sandbox.next_key is not None
        wrong = replace(sandbox.target(), settings=sandbox.target().settings.model_copy(update={"operator_id": "op_x"}))
        result = await play(wrong, [ENDED, PING, BROKEN], tmp_path / "run", run="run", patience=SHORT)
    ended, ping, broken = result.results
    assert (ping.verdict, ended.verdict, broken.verdict) == (
        ScenarioVerdict.PASSED,
        ScenarioVerdict.FAILED,
        ScenarioVerdict.SKIPPED,
    )
    (finding,) = ended.findings
    assert "answer: HTTP 401, status UNAUTHORIZED" in finding.observed
    assert finding.is_obstacle
    assert "compare the key, the operator id, and the digest" in finding.advice
    assert ended.observed is not None
    assert ended.observed.balance_reads
    assert result.stopped.startswith("balances cannot be read: player player-1: ")
    methods = {json.loads(line).get("method") for line in _lines(tmp_path)}
    assert methods <= {None, "PING", "BALANCE"}


async def test_a_run_above_its_cap_stops_and_is_undone(tmp_path: Path) -> None:
    results: list[ScenarioResult] = []
    async with changed_operator(tmp_path) as sandbox:
        target = replace(sandbox.target(), requests_max=30)
        result = await play(target, SMALL, tmp_path / "run", run="run", on_result=results.append)
        assert "of at most 30 requests" in result.stopped
        assert sandbox.balances() == UNTOUCHED
    assert {each.scenario.id for each in results} == {each.id for each in SMALL}


async def test_own_status_names_that_nobody_declared_leave_nothing_open(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as sandbox:
        target = replace(sandbox, statuses=StatusesSettings()).target()
        second = replace(debit("b"), name="second", bet="a")
        scenario = small("small-second", debit("a"), second, end("a", Method.BET_LOSE))
        result = await play(target, [scenario], tmp_path / "run", run="run")
        assert result.reversal.unresolved == ()
        assert sandbox.balances() == UNTOUCHED


async def test_a_balance_that_is_too_low_for_an_amount_fails_the_scenario_and_not_the_run(tmp_path: Path) -> None:
    low = Send(name="low", method=Method.BET_MAKE, bet="low", amount=AboveBalance(by=-BALANCE - 1))
    async with changed_operator(tmp_path) as sandbox:
        result = await play(sandbox.target(), [small("small-low", low), ENDED], tmp_path / "run", run="run")
        assert [each.verdict for each in result.results] == [ScenarioVerdict.FAILED, ScenarioVerdict.PASSED]
        assert "the balance of player 1 is too low" in result.results[0].findings[0].observed
        assert sandbox.balances() == UNTOUCHED
