"""The players' balances before a run: they are journaled, and must suffice for the scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from predictu_dispatch.certification.entries import StartEntry
from predictu_dispatch.certification.journal import Journal, RunRefusedError
from predictu_dispatch.certification.observation import Outcome, money
from predictu_dispatch.certification.recording import RecordingSender, read_balance
from predictu_dispatch.certification.requests import build
from predictu_dispatch.certification.scenario import Scenario
from predictu_dispatch.certification.schedule import required_money
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.methods import Method

START: Final = "start"
"""The scenario id of these readings."""


class Starts:
    """What each player had before the run's first debit, as far as it is known."""

    def __init__(self, target: Target, journal: Journal, recording: RecordingSender) -> None:
        self._target = target
        self._journal = journal
        self._recording = recording
        self._balances: dict[int, int] = {}

    @property
    def missing(self) -> tuple[int, ...]:
        """The players whose balances are not known; nothing may be debited before they are."""
        return tuple(player for player in range(len(self._target.players)) if player not in self._balances)

    async def read(self) -> None:
        """Read the missing balances. Raises RunRefusedError for a player who is unknown."""
        for player in self.missing:
            player_id = self._target.players[player]
            request = build(
                run=self._journal.head.run,
                scenario_id=START,
                name=f"balance-{self._journal.next_n()}",
                method=Method.BALANCE,
                target=self._target,
                now=datetime.now(UTC),
                player_id=player_id,
            )
            sent = (await read_balance(self._recording, request))[-1]
            if sent.outcome is Outcome.REFUSED:
                raise RunRefusedError(
                    f"player {player_id}: the operator refuses its BALANCE with status"
                    f" {sent.judgement.operator_status}; create the player in {self._target.currency}, or name another"
                )
            if sent.balance is not None:
                self.add({player: sent.balance})

    def add(self, balances: Mapping[int, int]) -> None:
        """Record balances before anything was debited."""
        players = self._target.players
        self._journal.append(
            [StartEntry(player_id=players[player], balance=balance) for player, balance in balances.items()]
        )
        self._balances.update(balances)

    def check(self, scenarios: Sequence[Scenario]) -> None:
        """Raise RunRefusedError if a player cannot pay for the scenarios."""
        required = required_money(scenarios, len(self._target.players))
        for player, balance in self._balances.items():
            if balance < required[player]:
                has, needed = (
                    money(amount, self._target.currency, self._target.digits) for amount in (balance, required[player])
                )
                raise RunRefusedError(
                    f"player {self._target.players[player]} has {has}; the scenarios need {needed}. Give the player"
                    " more; if this is not the balance, correct amount_format, or what BALANCE answers"
                )
