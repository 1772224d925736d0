"""Plays the steps of one scenario and observes what comes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, assert_never

from predictu_dispatch.certification.expectations import Answered
from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.obstacles import moved_too_much, too_low, unprepared, unread_balances
from predictu_dispatch.certification.preparing import prepare
from predictu_dispatch.certification.recording import RecordingSender, read_balance
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.scenario import Finding, Scenario, ScenarioVerdict
from predictu_dispatch.certification.schedule import required_money
from predictu_dispatch.certification.sender import Sender
from predictu_dispatch.certification.steps import (
    AFTER,
    BEFORE,
    RESUMED,
    Again,
    AtOnce,
    Batch,
    Handshake,
    Pause,
    Read,
    ReadLedger,
    Send,
    Step,
)
from predictu_dispatch.certification.target import Target

_NAMED_MAX: Final = 5
_LEDGER_MARGIN: Final = timedelta(minutes=5)
"""The operator's clock may differ from ours."""


class Reach(Enum):
    """How the operator behaved when a scenario ended early."""

    ANSWERS = "answers"
    SILENT = "silent"
    """There was a connection, and no answer."""
    DOWN = "down"
    """There was no connection."""


class EndedError(Exception):
    """A scenario cannot be played to its end; `stops_run` is why the run must stop too, or ""."""

    def __init__(self, finding: Finding, *, reach: Reach = Reach.ANSWERS, stops_run: str = "") -> None:
        super().__init__(finding.observed)
        self.finding = finding
        self.reach = reach
        self.stops_run = stops_run


class Playing:
    """One scenario in the middle. Nothing else is played during one of its methods."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        target: Target,
        run: str,
        run_started_at: datetime,
        sender: Sender,
        recording: RecordingSender,
    ) -> None:
        self.scenario = scenario
        self.observed = Observed(
            run=run,
            currency=target.currency,
            digits=target.digits,
            player_ids=target.players,
            interactive_timeout_s=target.settings.interactive.attempt_timeout_s,
            settlement_timeout_s=target.settings.settlement.attempt_timeout_s,
        )
        self._target = target
        self._run_started_at = run_started_at
        self._sender = sender
        self._recording = recording
        self._may_be_put_off = frozenset(
            name
            for expected in scenario.expectations
            if isinstance(expected, Answered) and expected.put_off is ScenarioVerdict.PASSED
            for name in expected.of
        )
        """The requests that are not sent again: 429 and 503 are right answers to them."""
        self._prepared: dict[str, Prepared] = {}
        self._newest: dict[int, int | None] = {}
        self._base: dict[int, int] = {}
        """The balances from which the scenario may move no more than it sent."""
        self._sent: Counter[str] = Counter()
        """By player_id, the sum of the amounts sent since then, each counted once a sending."""

    async def begin(self, players: Sequence[int]) -> None:
        """Read the balances of these players as BEFORE. Raises EndedError if they are too low."""
        self._base = await self._read(BEFORE, players)
        required = required_money([self.scenario], len(self._target.players))
        for player, balance in self._base.items():
            if balance < required[player]:
                has, needs = (self.observed.money(amount) for amount in (balance, required[player]))
                raise EndedError(too_low(self._target.players[player], has, needs))

    async def resume(self) -> None:
        """Read the balances after a pause: other scenarios moved them meanwhile."""
        self._base = await self._read(RESUMED, self.players)
        self._sent.clear()

    async def finish(self) -> tuple[Finding, ...]:
        """Read the balances as AFTER, and judge."""
        await self._read_and_check(AFTER)
        return (
            *(finding for expected in self.scenario.expectations for finding in expected.findings(self.observed)),
            *put_off_findings(self.observed.put_off),
        )

    @property
    def players(self) -> tuple[int, ...]:
        return tuple(player for player in self.scenario.players if player < len(self._target.players))

    async def play(self, steps: Iterable[Step]) -> None:
        """Play some steps. Raises EndedError."""
        for step in steps:
            await self._play(step)

    async def _play(self, step: Step) -> None:
        observed = self.observed
        match step:
            case Send() | Again():
                (prepared,) = self._prepare(step)
                observed.sent[prepared.name] = await self._sent_of(prepared)
            case AtOnce():
                answered = await self._recording.send_at_once(self._prepare(step))
                observed.sent.update({sent.name: sent for sent in answered})
            case Batch():
                shots = self._prepare(step)
                on_put_off = None if step.name in self._may_be_put_off else self._note_put_off
                observed.batches[step.name] = await self._recording.send_batch(
                    shots, in_flight=step.in_flight, on_put_off=on_put_off
                )
            case Read():
                await self._read_and_check(step.name)
            case Handshake():
                observed.tls = await self._sender.handshake()
            case ReadLedger():
                now = datetime.now(UTC)
                observed.ledger = await self._sender.ledger(self._run_started_at - _LEDGER_MARGIN, now + _LEDGER_MARGIN)
                observed.confirmed_in_run = tuple(self._recording.confirmed)
            case Pause():
                raise AssertionError("the runner splits the steps at a pause")
            case _:
                assert_never(step)

    async def _sent_of(self, prepared: Prepared) -> Sent:
        if prepared.name in self._may_be_put_off:
            return await self._recording.send(prepared)
        return await self._recording.send_until_taken(prepared, self._note_put_off)

    def _note_put_off(self, sent: Sent) -> None:
        self.observed.put_off.append(sent)
        # It is sent once more, and may be booked each time.
        self._sent[sent.player_id] += sent.amount or 0

    def _prepare(
        self, step: Send | Again | AtOnce | Batch | Read, players: Sequence[int] | None = None
    ) -> tuple[Prepared, ...]:
        try:
            prepared = prepare(
                step,
                run=self.observed.run,
                scenario_id=self.scenario.id,
                target=self._target,
                players=self.players if players is None else tuple(players),
                balances=self._newest,
                earlier=self._prepared,
                now=datetime.now(UTC),
            )
        except ValueError as error:
            # Such as an amount that depends on a balance which the wallet has emptied by a fault.
            raise EndedError(unprepared(str(error))) from error
        # Those that were put off had further sendings, each with a number of its own.
        further = self._recording.further_sendings
        prepared = tuple(replace(one, number=one.number + further(one.request_id)) for one in prepared)
        self._prepared |= {one.name: one for one in prepared}
        for one in prepared:
            self._sent[one.player_id] += one.amount or 0
        return prepared

    async def _read(self, name: str, players: Sequence[int]) -> dict[int, int]:
        """Read balances. Raises EndedError if one cannot be read."""
        balances: dict[int, int | None] = {}
        unread: list[Sent] = []
        for player, prepared in zip(players, self._prepare(Read(name=name), players), strict=True):
            sendings = await read_balance(self._recording, prepared, self._note_put_off)
            self.observed.balance_reads += sendings
            balances[player] = sendings[-1].balance
            unread += [sendings[-1]] if sendings[-1].balance is None else []
        self.observed.balances[name] = balances
        self._newest |= balances
        if unread:
            raise EndedError(unread_balances(unread), reach=_reach_of(unread))
        return {player: balance for player, balance in balances.items() if balance is not None}

    async def _read_and_check(self, name: str) -> None:
        """Read balances, and stop the run if one moved by more than all that was sent."""
        for player, balance in (await self._read(name, self.players)).items():
            player_id = self._target.players[player]
            moved, allowed = balance - self._base.get(player, balance), self._sent[player_id]
            if abs(moved) > allowed:
                raise EndedError(
                    moved_too_much(self.observed, player_id, moved, allowed),
                    stops_run=f"{self.scenario.id} moved the balance of player {player_id} by more than it sent",
                )


def _reach_of(unread: Sequence[Sent]) -> Reach:
    outcomes = {sent.outcome for sent in unread}
    if outcomes == {Outcome.NOT_SENT}:
        return Reach.DOWN
    return Reach.SILENT if outcomes <= {Outcome.NOT_SENT, Outcome.NO_ANSWER} else Reach.ANSWERS


def put_off_findings(put_off: Sequence[Sent]) -> tuple[Finding, ...]:
    """Return a warning if requests were put off and sent again."""
    if not put_off:
        return ()
    codes = " or ".join(sorted({str(sent.exchange.status) for sent in put_off}))
    names = tuple(dict.fromkeys(sent.name for sent in put_off))
    return (
        Finding(
            verdict=ScenarioVerdict.WARNING,
            expected="No request is put off.",
            observed=f"{_named(names)} got HTTP {codes} and had to be sent again later.",
            advice="If your sandbox limits the rate of requests, play with a lower --max-rate, and ask Predictu to set"
            " limits.max_requests_per_s for you: players wait while their debits are put off.",
            about=names[:_NAMED_MAX],
        ),
    )


def _named(names: Sequence[str]) -> str:
    """Return the name, or how many there are and the first one."""
    return names[0] if len(names) == 1 else f"{len(names)} requests, such as {names[0]},"
