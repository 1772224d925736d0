"""Prepares the requests of a scenario's steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from predictu_dispatch.certification.requests import (
    Prepared,
    again,
    bet_id_of,
    build,
    request_id_of,
    unknown_player_of,
)
from predictu_dispatch.certification.steps import (
    AboveBalance,
    Again,
    AtOnce,
    Batch,
    Read,
    Send,
    TokenFault,
)
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.methods import Method

Balances = Mapping[int, int | None]
"""The newest balance of each player, by index, in subunits; None: could not be read."""


def prepare(
    step: Send | Again | AtOnce | Batch | Read,
    *,
    run: str,
    scenario_id: str,
    target: Target,
    players: tuple[int, ...],
    balances: Balances,
    earlier: Mapping[str, Prepared],
    now: datetime,
) -> tuple[Prepared, ...]:
    """Return the requests of one step; `earlier` has those of the scenario so far, by name.

    `players` are the scenario's, `now` is in UTC. A Read reads their balances by `NAME-1` and
    `NAME-2`, for the player's index plus one. Raises ValueError if the scenario contradicts itself,
    or an amount depends on a balance that could not be read.
    """
    made = dict(earlier)
    preparing = _Preparing(
        run=run, scenario_id=scenario_id, target=target, players=players, balances=balances, made=made, now=now
    )
    for prepared in preparing.requests_of(step):
        if prepared.name in made:
            raise ValueError(f"{scenario_id}: two requests have the name {prepared.name}")
        made[prepared.name] = prepared
    return tuple(made[name] for name in list(made)[len(earlier) :])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preparing:
    """What the requests of one step are made from; `made` grows with each of them."""

    run: str
    scenario_id: str
    target: Target
    players: tuple[int, ...]
    balances: Balances
    made: Mapping[str, Prepared]
    now: datetime

    def requests_of(self, step: Send | Again | AtOnce | Batch | Read) -> Iterator[Prepared]:
        match step:
            case Send():
                yield self._first(step)
            case Again():
                yield self._repeated(step)
            case AtOnce():
                yield from chain.from_iterable(map(self.requests_of, step.sends))
            case Batch():
                for index in range(step.count):
                    yield self._shot(step, index)
            case Read():
                for player in self.players:
                    yield self._first(Send(name=f"{step.name}-{player + 1}", method=Method.BALANCE, player=player))

    def _named(self, name: str) -> Prepared:
        if name not in self.made:
            raise ValueError(f"{self.scenario_id}: no earlier request has the name {name}")
        return self.made[name]

    def _again(self, of: str, *, name: str) -> Prepared:
        return again(self._named(of), name=name, number=self._next_number(self._named(of).request_id))

    def _repeated(self, step: Again) -> Prepared:
        sending = self._again(step.of, name=step.name)
        if step.token is not TokenFault.OTHER_BODY:
            return replace(sending, token=step.token)
        if not (token_body := self.made[step.of].token_body):
            raise ValueError(f"{self.scenario_id}, {step.name}: only a Send can have a token for another body")
        return replace(sending, token=step.token, token_body=token_body)

    def _next_number(self, request_id: str) -> int:
        return 1 + max((one.number for one in self.made.values() if one.request_id == request_id), default=0)

    def _first(self, step: Send) -> Prepared:
        is_known = step.rollback_of in self.made
        rollback_of = self.made[step.rollback_of].request_id if is_known else self._own_id(step.rollback_of)
        request_id = self._named(step.request_id_of).request_id if step.request_id_of else ""
        prepared = self._build(
            step.name,
            step.method,
            player_id=unknown_player_of(self.run) if step.is_unknown_player else self.target.players[step.player],
            bet=step.bet,
            amount=self._amount(step),
            currency=step.currency,
            rollback_of=rollback_of,
            request_id=request_id,
            further=step.further,
            age_s=step.age_s,
            is_reordered=step.is_reordered,
            token=step.token,
            delivery=step.delivery,
        )
        return replace(prepared, number=self._next_number(prepared.request_id))

    def _own_id(self, name: str) -> str:
        return str(request_id_of(self.run, self.scenario_id, name)) if name else ""

    def _build(self, name: str, method: Method, *, bet: str, age_s: int = 0, **rest: Any) -> Prepared:  # noqa: ANN401 - build()'s own
        bet_id = bet_id_of(self.run, self.scenario_id, bet) if bet else ""
        return build(
            run=self.run,
            scenario_id=self.scenario_id,
            name=name,
            method=method,
            target=self.target,
            now=self.now - timedelta(seconds=age_s),
            bet_id=bet_id,
            **rest,
        )

    def _amount(self, step: Send) -> int | None:
        if not isinstance(step.amount, AboveBalance):
            return step.amount
        balance = self.balances.get(step.player)
        if balance is None:
            raise ValueError(f"{self.scenario_id}, {step.name}: the balance of player {step.player + 1} is not known")
        amount = max(0, balance) + step.amount.by
        if amount < 1:
            raise ValueError(f"{self.scenario_id}, {step.name}: the balance of player {step.player + 1} is too low")
        return amount

    def _shot(self, step: Batch, index: int) -> Prepared:
        name = f"{step.name}-{index + 1}"
        if step.again:
            return replace(self._again(f"{step.again}-{index + 1}", name=name), delivery=step.delivery)
        bet = f"b-{index + 1}"
        method = step.methods[index % len(step.methods)]
        return self._build(
            name,
            method,
            player_id=self.target.players[self.players[index % len(self.players)]],
            bet=bet,
            amount=step.amounts[index % len(step.amounts)],
            rollback_of=self._placement_of(bet) if method is Method.BET_ROLLBACK else "",
            delivery=step.delivery,
        )

    def _placement_of(self, bet: str) -> str:
        bet_id = bet_id_of(self.run, self.scenario_id, bet)
        for one in self.made.values():
            if one.bet_id == bet_id and one.method is Method.BET_MAKE:
                return one.request_id
        raise ValueError(f"{self.scenario_id}: no earlier batch has placed the bet {bet}")
