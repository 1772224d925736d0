"""What a run moved is given back, or said: against operators that are down, slow, or wrong."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from predictu_dispatch.certification.journal import RunRefusedError
from predictu_dispatch.certification.result import ScenarioResult
from predictu_dispatch.certification.reversal import Patience, clean
from predictu_dispatch.certification.runner import INTERRUPTED, play
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.certification.steps import Again, Pause, Send, Step, TokenFault
from predictu_dispatch.core.methods import Method
from tests.certification.gate import gate_to
from tests.certification.mutants import Change, changes_of
from tests.certification.sandbox import BALANCE, PLAYERS, SHORT, UNTOUCHED, Sandbox, changed_operator, new_key
from tests.certification.small_scenarios import ENDED, PAUSED, SMALL, STAKE, Fails, debit, end, small

PAYS_WITH_A_STATUS_OF_ITS_OWN = (
    Change(
        file="receiver.py",
        old="        return _response(decision.reply)\n",
        new="        reply = decision.reply\n"
        "        if body and b'BET_WIN' in body:\n"
        "            text = reply.body.replace('OK', 'PAID').replace('DUPLICATE', 'PAID')\n"
        "            reply = replace(reply, body=text)\n"
        "        return _response(reply)\n",
    ),
    Change(
        file="receiver.py",
        old="from dataclasses import dataclass\n",
        new="from dataclasses import dataclass, replace\n",
    ),
)


def nets(players: object) -> dict[str, int | None]:
    assert isinstance(players, tuple)
    return {player.player_id: player.net for player in players}


def differences(sandbox: Sandbox) -> dict[str, int]:
    return {player_id: balance - BALANCE for player_id, balance in sandbox.balances().items()}


async def test_what_an_operator_that_is_down_did_not_undo_is_listed_and_cleaned_later(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as operator, gate_to(operator.url) as gate:
        sandbox = replace(operator, url=gate.url)
        folder = tmp_path / "run"

        def shut(result: ScenarioResult) -> None:
            if result.scenario is ENDED:
                gate.shut()

        scenarios = [ENDED, small("small-one", debit("a")), small("small-two", debit("a"))]
        result = await play(sandbox.target(), scenarios, folder, run="run", on_result=shut, patience=SHORT)
        assert [each.verdict for each in result.results] == [
            ScenarioVerdict.PASSED,
            ScenarioVerdict.FAILED,
            ScenarioVerdict.SKIPPED,
        ]
        assert result.stopped.startswith("the operator could not be reached: player player-1: not sent: ")
        assert nets(result.reversal.players) == dict.fromkeys(PLAYERS)
        (sentence,) = result.reversal.unresolved
        assert "cert-run-small-ended-open of player player-2: the rollback of 5.00 EUR was not confirmed" in sentence
        assert sandbox.balances() != UNTOUCHED

        still_down = await clean(sandbox.target(), folder, run="run", patience=SHORT)
        assert still_down.unresolved == (sentence,)

        await gate.open()
        cleaned = await clean(sandbox.target(), folder, run="run", patience=SHORT)
        assert (cleaned.rolled_back, cleaned.compensated, cleaned.unresolved) == (1, 2, ())
        assert nets(cleaned.players) == dict.fromkeys(PLAYERS, 0)
        assert sandbox.balances() == UNTOUCHED


async def test_a_damaged_line_of_the_journal_is_named_and_all_others_are_undone(tmp_path: Path) -> None:
    """A crash of the machine may leave zeros in lines that were not synced: those of outcomes."""
    async with changed_operator(tmp_path) as operator, gate_to(operator.url) as gate:
        sandbox = replace(operator, url=gate.url)
        file = tmp_path / "run" / "journal.ndjson"
        await play(sandbox.target(), [ENDED], file.parent, run="run", on_result=lambda _: gate.shut(), patience=SHORT)
        assert sandbox.balances() != UNTOUCHED
        lines = file.read_bytes().split(b"\n")
        outcomes = [number for number, line in enumerate(lines) if b'"entry":"outcome"' in line and b"OK" in line]
        for number in outcomes[-3:]:
            lines[number] = b"\0" * len(lines[number])
        file.write_bytes(b"\n".join(lines))
        await gate.open()
        for _ in range(2):
            cleaned = await clean(sandbox.target(), file.parent, run="run")
            named = [
                f"is damaged in line {number + 1}: " in sentence
                for number, sentence in zip(outcomes[-3:], cleaned.unresolved, strict=True)
            ]
            assert named == [True] * 3
            assert nets(cleaned.players) == dict.fromkeys(PLAYERS, 0)
            assert sandbox.balances() == UNTOUCHED


async def test_a_win_with_an_undeclared_status_is_undone_as_soon_as_the_status_is_declared(tmp_path: Path) -> None:
    """Its bet cannot be rolled back: it is won. The answer to a repetition has the status again."""
    scenario = small("small-won", debit("a"), end("a", Method.BET_WIN, 1250))
    async with changed_operator(tmp_path, PAYS_WITH_A_STATUS_OF_ITS_OWN) as sandbox:
        folder = tmp_path / "run"
        result = await play(sandbox.target(), [scenario], folder, run="run", patience=SHORT)
        assert result.reversal.unresolved
        assert nets(result.reversal.players) == {"player-1": 750, "player-2": 0} == differences(sandbox)
        statuses = sandbox.statuses.model_copy(update={"success": ("PAID",)})
        cleaned = await clean(replace(sandbox, statuses=statuses).target(), folder, run="run", patience=SHORT)
        assert cleaned.unresolved == ()
        assert sandbox.balances() == UNTOUCHED


async def test_an_operator_whose_answers_are_often_lost_is_undone_to_the_cent(tmp_path: Path) -> None:
    faults = ("--faults", "reset=0.1,reset_after_apply=0.15,error_after_apply=0.1,not_json=0.05", "--fault-seed", "3")
    patience = Patience(tries=12, first_delay_s=0.001, delay_max_s=0.01, limit_s=30.0)
    async with changed_operator(tmp_path, options=faults) as sandbox:
        await play(sandbox.target(), SMALL, tmp_path / "run", run="run", patience=patience)
        cleaned = await clean(sandbox.target(), tmp_path / "run", run="run", patience=patience)
        assert cleaned.unresolved == ()
        assert sandbox.balances() == UNTOUCHED


@pytest.mark.parametrize(
    ("name", "steps", "lost"),
    [
        ("no-idempotency", (debit("a"), Again(name="again", of="debit-a")), STAKE),
        (
            "win-twice",
            (debit("a"), end("a", Method.BET_WIN, 300), Again(name="again", of="end-a")),
            -300,
        ),
    ],
)
async def test_what_an_operator_booked_twice_is_the_printed_net_effect(
    name: str, steps: tuple[Step, ...], lost: int, tmp_path: Path
) -> None:
    async with changed_operator(tmp_path, changes_of(name)) as sandbox:
        result = await play(sandbox.target(), [small("small-wrong", *steps)], tmp_path / "run", run="run")
        assert differences(sandbox) == {PLAYERS[0]: -lost, PLAYERS[1]: 0}
        assert nets(result.reversal.players) == differences(sandbox)


async def test_a_debit_that_was_booked_although_it_was_refused_is_rolled_back(tmp_path: Path) -> None:
    forged = Send(name="forged", method=Method.BET_MAKE, bet="forged", amount=STAKE, token=TokenFault.WRONG_KEY)
    books_first = changes_of("books-before-verification")
    async with changed_operator(tmp_path, books_first) as sandbox:
        scenario = replace(small("small-forged", forged), expectations=(Fails(),))
        result = await play(sandbox.target(), [scenario], tmp_path / "run", run="run")
        assert nets(result.reversal.players) == dict.fromkeys(PLAYERS, 0)
        assert sandbox.balances() == UNTOUCHED


async def test_wins_that_a_wrong_operator_confirmed_are_taken_back(tmp_path: Path) -> None:
    two_wins = small(
        "small-two-wins",
        debit("a"),
        end("a", Method.BET_WIN, 300),
        Send(name="second", method=Method.BET_WIN, bet="a", amount=40),
        Send(name="rollback", method=Method.BET_ROLLBACK, bet="a", amount=STAKE, rollback_of="debit-a"),
    )
    async with changed_operator(tmp_path, changes_of("two-wins-credited")) as sandbox:
        result = await play(sandbox.target(), [two_wins], tmp_path / "run", run="run")
        assert result.reversal.compensated == 1
        assert sandbox.balances() == UNTOUCHED


async def test_a_win_that_was_confirmed_and_not_booked_is_neither_hidden_nor_made_up_for(tmp_path: Path) -> None:
    pays_nothing = Change(
        file="rules.py", old="credit = callback.amount if callback.method in", new="credit = 0 if callback.method in"
    )
    small_win = small("small-win", debit("a"), end("a", Method.BET_WIN, 800))
    large_win = small("large-win", debit("b"), end("b", Method.BET_WIN, 30_000))
    async with changed_operator(tmp_path, (pays_nothing,)) as sandbox:
        first = await play(sandbox.target(), [small_win], tmp_path / "first", run="first")
        assert nets(first.reversal.players) == differences(sandbox) == {PLAYERS[0]: -800, PLAYERS[1]: 0}
        second = await play(sandbox.target(), [large_win], tmp_path / "second", run="second")
        (sentence,) = second.reversal.unresolved
        assert "the debit of 295.00 EUR that begins its compensation was not booked" in sentence
        assert "INSUFFICIENT_FUNDS" in sentence


async def test_an_interrupted_run_is_undone_and_says_so(tmp_path: Path) -> None:
    stop = asyncio.Event()

    def interrupt(_: ScenarioResult) -> None:
        stop.set()

    paused = small("small-long", debit("long"), Pause(seconds=3600))
    async with changed_operator(tmp_path) as sandbox:
        result = await play(
            sandbox.target(), [paused, ENDED, PAUSED], tmp_path / "run", run="run", stop=stop, on_result=interrupt
        )
        assert result.stopped == INTERRUPTED
        first, second, third = result.results
        assert (first.verdict, first.reason) == (ScenarioVerdict.SKIPPED, f"the run was stopped: {INTERRUPTED}")
        assert (second.verdict, third.verdict) == (ScenarioVerdict.PASSED, ScenarioVerdict.SKIPPED)
        assert result.reversal.unresolved == ()
        assert sandbox.balances() == UNTOUCHED


async def test_a_cancelled_run_is_undone_before_the_cancellation_is_raised(tmp_path: Path) -> None:
    begun = asyncio.Event()
    paused = small("small-paused", debit("long"), Pause(seconds=3600))
    async with changed_operator(tmp_path) as sandbox:
        playing = asyncio.create_task(
            play(sandbox.target(), [paused, ENDED], tmp_path / "run", run="run", on_result=lambda _: begun.set())
        )
        await begun.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert sandbox.balances() == UNTOUCHED


async def test_clean_refuses_a_run_that_is_not_its_own(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as sandbox:
        folder = tmp_path / "run"
        target = sandbox.target()
        await play(target, [small("small-one", debit("a"))], folder, run="run")
        with pytest.raises(RunRefusedError, match="there is no run other"):
            await clean(target, tmp_path / "other", run="other")
        other_key = replace(target, key=new_key(tmp_path / "other.pem"))
        with pytest.raises(RunRefusedError, match="of another key"):
            await clean(other_key, folder, run="run")
        other_url = replace(sandbox, url=f"{sandbox.url}/other").target()
        with pytest.raises(RunRefusedError, match="of another URL"):
            await clean(other_url, folder, run="run")
        with pytest.raises(RunRefusedError, match="of another players"):
            await clean(replace(target, players=PLAYERS[:1]), folder, run="run")


async def test_a_run_in_use_is_neither_cleaned_nor_played_beside(tmp_path: Path) -> None:
    async with changed_operator(tmp_path) as sandbox:
        target, refused = sandbox.target(), []
        begun = asyncio.Event()
        paused = small("small-paused", debit("long"), Pause(seconds=3600))
        playing = asyncio.create_task(
            play(target, [paused, ENDED], tmp_path / "runs" / "run", run="run", on_result=lambda _: begun.set())
        )
        await begun.wait()
        for other in (
            clean(target, tmp_path / "runs" / "run", run="run"),
            play(target, [ENDED], tmp_path / "runs" / "second", run="second"),
            play(target, [ENDED], tmp_path / "runs" / "run", run="run"),
        ):
            with pytest.raises(RunRefusedError) as error:
                await other
            refused.append(str(error.value))
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
    assert "run run is in use" in refused[0]
    assert all("another run plays against" in each for each in refused[1:])
