"""Makes old bets and callbacks: created by the real functions, then moved into the past.

Which of them retention may remove is decided here from how each was made, not from its rows.
"""

import random
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    Report,
    delivered,
    enqueue,
    exhausted,
    rejected,
    report,
    retried,
)

KEEP_MONTHS = 3
SPAN_MONTHS = 9
"""How far the histories reach back; what is older than KEEP_MONTHS may be removed."""


def month_start(months_ago: int) -> datetime:
    now = datetime.now(UTC)
    count = now.year * 12 + now.month - 1 - months_ago
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


def part_of(at: datetime) -> str:
    return f"{at:%Y_%m}"


async def make_months(owner: Connection) -> list[str]:
    """Creates the audit partitions of all months; returns their names."""
    parts = []
    for months_ago in range(SPAN_MONTHS, 0, -1):
        begin, end = month_start(months_ago), month_start(months_ago - 1)
        parts.append(part_of(begin))
        await owner.execute(
            f"create table predictu_dispatch.attempt_{part_of(begin)} partition of predictu_dispatch.attempt_record"
            f" for values from ('{begin.isoformat()}') to ('{end.isoformat()}')"
        )
    return parts


@dataclass(kw_only=True)
class History:
    """The callbacks of one bet, or one callback without a bet; `times` has the end of each."""

    path: str
    bet_id: str | None
    is_finished: bool
    requests: list[uuid.UUID] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    resolved_at: datetime | None = None

    def is_removed(self, cutoff: datetime) -> bool:
        """True if retention must remove it: finished, and everything that happened to it is old."""
        times = [*self.times, *([self.resolved_at] if self.resolved_at else [])]
        return self.is_finished and all(at < cutoff for at in times)


class HistoryBuilder:
    """Makes histories whose steps happen at times that the test chooses."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.made: list[History] = []
        self._paths: dict[str, Callable[[History], Awaitable[None]]] = {
            "won": self._won,
            "lost after retries": self._lost_after_retries,
            "refused": self._refused,
            "rolled back": self._rolled_back,
            "never sent": self._never_sent,
            "resolved": self._resolved,
            "adopted and won": self._adopted_and_won,
            "balance": self._balance,
            "ping": self._ping,
            "open": self._open,
            "placing": self._placing,
            "waiting": self._waiting,
            "closing": self._closing,
            "in review": self._in_review,
            "stake missing": self._stake_missing,
        }
        self._unfinished = {"open", "placing", "waiting", "closing", "in review", "stake missing"}

    @property
    def paths(self) -> list[str]:
        return list(self._paths)

    async def make(self, path: str, *times: datetime) -> History:
        """Makes one history; its n-th callback ends at the n-th time, or at the last one given."""
        bet_id = None if path in ("balance", "ping") else f"b-{len(self.made)}"
        history = History(path=path, bet_id=bet_id, is_finished=path not in self._unfinished)
        self.made.append(history)
        await self._paths[path](history)
        for n, request_id in enumerate(history.requests):
            history.times.append(times[min(n, len(times) - 1)])
            await self._age(history, request_id, history.times[-1])
        if history.resolved_at is not None:
            history.resolved_at = history.times[-1]
            await self._age_resolution(history)
        return history

    async def draw(self, rng: random.Random, count: int) -> None:
        """Makes `count` histories, of every path, at random times."""
        for n in range(count):
            path = self.paths[n] if n < len(self.paths) else rng.choice(self.paths)
            steps = sorted(rng.randrange(SPAN_MONTHS * 28) for _ in range(3))
            now = datetime.now(UTC)
            times = [now - timedelta(days=days, minutes=rng.randrange(600)) for days in reversed(steps)]
            await self.make(path, *times)

    async def _age(self, history: History, request_id: uuid.UUID, at: datetime) -> None:
        await self.harness.owner.execute(
            "update predictu_dispatch.callback set finished_at = $2, due_at = $2 where request_id = $1"
            " and finished_at is not null",
            *(request_id, at),
        )
        await self.harness.owner.execute(
            "update predictu_dispatch.bet set updated_at = $3 where operator_id = $1 and bet_id = $2",
            *(OPERATOR, history.bet_id, at),
        )
        # The audit is partitioned by started_at and refuses updates, so its trigger is off
        # meanwhile.
        async with self.harness.owner.transaction():
            await self.harness.owner.execute(
                "alter table predictu_dispatch.attempt_record disable trigger attempt_append_only"
            )
            await self.harness.owner.execute(
                "update predictu_dispatch.attempt_record set started_at = $2, finished_at = $2 where request_id = $1",
                *(request_id, at - timedelta(milliseconds=20)),
            )
            await self.harness.owner.execute(
                "alter table predictu_dispatch.attempt_record enable always trigger attempt_append_only"
            )

    async def _age_resolution(self, history: History) -> None:
        async with self.harness.owner.transaction():
            table = "predictu_dispatch.intervention"
            await self.harness.owner.execute(f"alter table {table} disable trigger intervention_append_only")
            await self.harness.owner.execute(
                f"update {table} set done_at = $2 where request_id = $1",  # noqa: S608 - a constant
                *(history.requests[-1], history.resolved_at),
            )
            await self.harness.owner.execute(f"alter table {table} enable always trigger intervention_append_only")

    async def _made(self, history: History, outcome: Callable[..., Report] = delivered, **fields: Any) -> None:
        """Places the bet and makes one attempt."""
        assert history.bet_id
        history.requests.append(await self.harness.place(history.bet_id))
        await self.harness.attempt(history.requests[-1], outcome, **fields)

    async def _ended(self, history: History, method: str, *outcome: Callable[..., Report]) -> None:
        assert history.bet_id
        history.requests.append(await self.harness.end(method, history.bet_id))
        for one in outcome:
            await self.harness.attempt(history.requests[-1], one)

    async def _won(self, history: History) -> None:
        await self._made(history)
        await self._ended(history, "BET_WIN", delivered)

    async def _lost_after_retries(self, history: History) -> None:
        await self._made(history)
        await self._ended(history, "BET_LOSE", retried, retried, delivered)

    async def _refused(self, history: History) -> None:
        await self._made(history, rejected)

    async def _rolled_back(self, history: History) -> None:
        await self._made(history, exhausted)
        [rollback] = await self.harness.rollbacks(history.bet_id or "")
        history.requests.append(rollback["request_id"])
        await self.harness.attempt(history.requests[-1], delivered)

    async def _never_sent(self, history: History) -> None:
        assert history.bet_id
        history.requests.append(await self.harness.place(history.bet_id))
        await self.harness.rollback(history.bet_id)

    async def _resolved(self, history: History) -> None:
        await self._in_review(history)
        await self.harness.person.execute(
            "select predictu_dispatch.resolve_callback($1, $2, 'paid by hand', 'alice@desk')",
            *(OPERATOR, history.requests[-1]),
        )
        history.resolved_at = datetime.now(UTC)

    async def _adopted_and_won(self, history: History) -> None:
        await self.harness.producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)", OPERATOR, history.bet_id, uuid.uuid4()
        )
        await self._ended(history, "BET_WIN", delivered)

    async def _balance(self, history: History) -> None:
        params = {"player_id": "p1", "currency": "EUR"}
        history.requests.append(await enqueue(self.harness.producer, "BALANCE", params))
        await self.harness.attempt(history.requests[-1], delivered)

    async def _ping(self, history: History) -> None:
        history.requests.append(await enqueue(self.harness.producer, "PING", {}))
        await self.harness.attempt(history.requests[-1], delivered)

    async def _open(self, history: History) -> None:
        await self._made(history)

    async def _placing(self, history: History) -> None:
        await self._made(history, retried, due_in_s=3e8)

    async def _waiting(self, history: History) -> None:
        await self._placing(history)
        await self._ended(history, "BET_WIN")

    async def _closing(self, history: History) -> None:
        await self._made(history)
        assert history.bet_id
        history.requests.append(await self.harness.end("BET_WIN", history.bet_id))
        await self.harness.attempt(history.requests[-1], retried, due_in_s=3e8)

    async def _in_review(self, history: History) -> None:
        await self._made(history)
        await self._ended(history, "BET_WIN", retried, exhausted)

    async def _stake_missing(self, history: History) -> None:
        """The debit was confirmed, its rollback finds nothing to reverse: closed, needs review."""
        await self._made(history)
        assert history.bet_id
        rollback = await self.harness.rollback(history.bet_id)
        assert rollback is not None
        history.requests.append(rollback)
        await self.harness.attempt(rollback, _nothing_to_reverse)


def _nothing_to_reverse(lease: Any, **fields: Any) -> Report:
    return report(lease, state="delivered", verdict="delivered", state_reason="nothing_to_reverse", **fields)


def requests_of(histories: Iterable[History]) -> set[uuid.UUID]:
    return {request_id for history in histories for request_id in history.requests}
