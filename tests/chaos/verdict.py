"""The verdict on a chaos run: the check of the books, and what was acknowledged exists."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import asyncpg

from predictu_dispatch.books_check import check_books
from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.delivery_checks import BALANCE_CHECK, ORDER_CHECK
from predictu_dispatch.books_check.ledgers import OperatorLedger, PredictuLedger, read_operator
from predictu_dispatch.core.callback import body
from predictu_dispatch.edge.postgres.outbox_rows import callback_of
from tests.chaos.answers import AnswerLog, answers_check, order_check

_BET_ID = re.compile(r"bet-\d+")


class Verdict(NamedTuple):
    """What the books show."""

    checks: tuple[Check, ...]
    callbacks: int
    attempts: int
    bets: int
    duplicates: int
    late: int
    interrupted: int
    recovery_s: tuple[float, ...]

    @property
    def faults(self) -> list[str]:
        """Each with its check; a check that compared nothing is a fault as well."""
        return [
            f"{check.name}: {fault}"
            for check in self.checks
            if not check.holds
            for fault in (check.faults or (f"it compared {check.rows} rows",))
        ]

    @property
    def sentence(self) -> str:
        """The result in one line."""
        rows = f"{self.bets} bets, {self.callbacks} callbacks, {self.attempts} attempts"
        return f"{rows}: {f'FAILED, {len(self.faults)} faults' if self.faults else 'every check holds'}"


def judge(
    predictu: PredictuLedger,
    operators: Sequence[OperatorLedger],
    *,
    opening: Mapping[str, int],
    acknowledged: Mapping[str, str],
    answers: Mapping[str, AnswerLog],
    ended_early: Collection[str],
) -> Verdict:
    """Check a finished run; `acknowledged` has each committed request_id with its method.

    `answers` and `ended_early` are those of answers_check().
    """
    checks = [
        *check_books(predictu, operators, opening={operator.operator_id: opening for operator in operators}),
        _acknowledged_check(predictu, acknowledged),
        answers_check(answers, predictu.attempts, ended_early=ended_early),
        order_check(answers, predictu.histories()),
    ]
    received = [bodies for operator in operators for bodies in operator.received.values()]
    return Verdict(
        # An empty review list is no fault, BALANCE is not asked for after the last bet, and the
        # database's clock steps.
        checks=tuple(
            check for check in checks if (check.rows or check.faults) and check.name not in (BALANCE_CHECK, ORDER_CHECK)
        ),
        callbacks=len(predictu.callbacks),
        attempts=len(predictu.attempts),
        bets=len(predictu.bets),
        duplicates=sum(len(bodies) - 1 for bodies in received),
        late=sum(attempt.verdict == "late" for attempt in predictu.attempts),
        interrupted=sum(attempt.reason == "interrupted" for attempt in predictu.attempts),
        recovery_s=_recovery_s(predictu),
    )


def _acknowledged_check(predictu: PredictuLedger, acknowledged: Mapping[str, str]) -> Check:
    found = {callback.request_id: callback.method for callback in predictu.callbacks}
    return Check(
        name="what was acknowledged to a producer exists",
        rows=len(acknowledged),
        figures=f"{len(acknowledged)} acknowledged",
        faults=tuple(
            f"{method} {request_id} was acknowledged and is {found.get(request_id, 'missing')}"
            for request_id, method in acknowledged.items()
            if found.get(request_id) != method
        ),
    )


def _recovery_s(predictu: PredictuLedger) -> tuple[float, ...]:
    """For each interrupted attempt: seconds from its start to the start of the next."""
    found = []
    for attempts in predictu.attempts_by_callback().values():
        started_at = {attempt.attempt: attempt.started_at for attempt in attempts}
        found += [
            (started_at[attempt.attempt + 1] - attempt.started_at).total_seconds()
            for attempt in attempts
            if attempt.reason == "interrupted" and attempt.attempt + 1 in started_at
        ]
    return tuple(sorted(found))


# The columns of a callback as core has it; only those in the body have a meaning here.
_WITHOUT_BODY = """
    select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts as attempt, c.budget_from, c.effect,
           c.reason, c.params, c.created_at, c.due_at, null::double precision as expires_in_s,
           c.created_at as leased_at, 0.0::double precision as lease_s, c.amount_format,
           predictu_dispatch.currency_digits(c.params ->> 'currency') as minor_digits,
           null::double precision as placement_ended_s_ago
      from predictu_dispatch.callback c
     where exists (select from predictu_dispatch.attempt a
                    where (a.operator_id, a.request_id) = (c.operator_id, c.request_id) and a.reason = 'interrupted')
       and not exists (select from predictu_dispatch.attempt a
                        where (a.operator_id, a.request_id) = (c.operator_id, c.request_id)
                          and a.request_body is not null)
"""


async def interrupted_bodies(owner: "asyncpg.Connection[asyncpg.Record]") -> dict[tuple[str, str], bytes]:
    """The bodies of callbacks that have no report of any attempt, by operator_id and request_id.

    The audit has no body of an interrupted attempt, and a debit is often not attempted again.
    """
    callbacks = [callback_of(tuple(row), leased_at_s=0.0) for row in await owner.fetch(_WITHOUT_BODY)]
    return {(callback.operator_id, str(callback.request_id)): body(callback) for callback in callbacks}


def operator_ledger(
    operator_id: str, wallet: Path, predictu: PredictuLedger, interrupted: Mapping[tuple[str, str], bytes]
) -> OperatorLedger:
    """An operator's side, with the requests of daemons whose clock was wrong.

    The operator does not verify those and keeps their hashes. A hash of no request that we sent
    stays unverified. `interrupted` is what interrupted_bodies() returned.
    """
    ledger = read_operator(operator_id, wallet)
    bodies = {
        (attempt.operator_id, attempt.request_id): attempt.request_body.encode()
        for attempt in predictu.attempts
        if attempt.request_body is not None
    } | dict(interrupted)
    sent = {
        sha256(content).hexdigest(): (request_id, content)
        for (sent_to, request_id), content in bodies.items()
        if sent_to == operator_id
    }
    received = defaultdict(list, ledger.received)
    unknown: list[str | None] = []
    for body_sha256 in ledger.unverified:
        if body_sha256 in sent:
            request_id, content = sent[body_sha256]
            received[request_id].append(content)
        elif body_sha256 is not None:
            unknown.append(body_sha256)
    return ledger._replace(received=dict(received), unverified=tuple(unknown))


def history(predictu: PredictuLedger, fault: str) -> list[str]:
    """Every callback and attempt of the bets that a fault names."""
    lines = []
    named = set(_BET_ID.findall(fault))
    attempts = predictu.attempts_by_callback()
    for bet in predictu.bets:
        if bet.bet_id not in named:
            continue
        lines.append(f"  {bet.operator_id} {bet.bet_id} is {bet.state}, stake {bet.amount}, player {bet.player_id}")
        for callback in predictu.callbacks:
            if (callback.operator_id, callback.bet_id) != (bet.operator_id, bet.bet_id):
                continue
            lines.append(
                f"    {callback.method} {callback.request_id} {callback.state} {callback.reason} {callback.effect}"
                f" enqueued {callback.created_at:%H:%M:%S.%f} ended {callback.finished_at}"
            )
            lines += [
                f"      {attempt.attempt}: {attempt.evidence} {attempt.verdict} {attempt.reason}"
                f" {attempt.started_at:%H:%M:%S.%f} to {attempt.finished_at:%H:%M:%S.%f}"
                for attempt in attempts.get((callback.operator_id, callback.request_id), ())
            ]
    return lines
