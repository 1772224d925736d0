"""Years of history in a moment: bets and callbacks through the real functions, and then made as old as the test wants.

Which of them retention may remove is said here a second time, in Python, from how each was made and not from its rows.
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
"""How far the histories reach back; what is beyond the kept months is old."""


def month_start(months_ago: int) -> datetime:
    """The beginning of a month of UTC."""
    now = datetime.now(UTC)
    count = now.year * 12 + now.month - 1 - months_ago
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


def part_of(moment: datetime) -> str:
    return f"{moment:%Y_%m}"


async def make_months(owner: Connection) -> list[str]:
    """The audit has partitions for all of the span, as if daemons had run all the time; returns their names."""
    parts = []
    for months_ago in range(SPAN_MONTHS, 0, -1):
        begin, end = month_start(months_ago), month_start(months_ago - 1)
        parts.append(part_of(begin))
        await owner.execute(
            f"create table predictu_dispatch.attempt_{part_of(begin)} partition of predictu_dispatch.attempt"
            f" for values from ('{begin.isoformat()}') to ('{end.isoformat()}')"
        )
    return parts


@dataclass(kw_only=True)
class History:
    """What was done for one bet, or for one callback without a bet: `moments` go with the callbacks, one for each."""

    path: str
    bet_id: str | None
    can_go: bool
    requests: list[uuid.UUID] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)
    resolved_at: datetime | None = None

    def is_removed(self, cutoff: datetime) -> bool:
        """True if retention has to remove it: over, and all that ever happened to it is old."""
        happened = [*self.moments, *([self.resolved_at] if self.resolved_at else [])]
        return self.can_go and all(moment < cutoff for moment in happened)


class HistoryBuilder:
    """Lives of bets, each step at a moment of the test's choosing."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.lives: list[History] = []
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
        self._for_ever = {"open", "placing", "waiting", "closing", "in review", "stake missing"}

    @property
    def paths(self) -> list[str]:
        return list(self._paths)

    async def live(self, path: str, *moments: datetime) -> History:
        """One life; its n-th callback ends at the n-th moment, the last moment counts for those after it."""
        bet_id = None if path in ("balance", "ping") else f"b-{len(self.lives)}"
        life = History(path=path, bet_id=bet_id, can_go=path not in self._for_ever)
        self.lives.append(life)
        await self._paths[path](life)
        for n, request_id in enumerate(life.requests):
            life.moments.append(moments[min(n, len(moments) - 1)])
            await self._age(life, request_id, life.moments[-1])
        if life.resolved_at is not None:
            life.resolved_at = life.moments[-1]
            await self._age_resolution(life)
        return life

    async def draw(self, rng: random.Random, count: int) -> None:
        """Lives of every path, at drawn moments of the span."""
        for n in range(count):
            path = self.paths[n] if n < len(self.paths) else rng.choice(self.paths)
            steps = sorted(rng.randrange(SPAN_MONTHS * 28) for _ in range(3))
            now = datetime.now(UTC)
            moments = [now - timedelta(days=days, minutes=rng.randrange(600)) for days in reversed(steps)]
            await self.live(path, *moments)

    async def _age(self, life: History, request_id: uuid.UUID, moment: datetime) -> None:
        await self.harness.owner.execute(
            "update predictu_dispatch.callback set finished_at = $2, due_at = $2 where request_id = $1"
            " and finished_at is not null",
            *(request_id, moment),
        )
        await self.harness.owner.execute(
            "update predictu_dispatch.bet set updated_at = $3 where operator_id = $1 and bet_id = $2",
            *(OPERATOR, life.bet_id, moment),
        )
        # The audit's own key is when an attempt began: so its rows are written anew, at another time.
        async with self.harness.owner.transaction():
            await self.harness.owner.execute("alter table predictu_dispatch.attempt disable trigger attempt_only_grows")
            await self.harness.owner.execute(
                "update predictu_dispatch.attempt set started_at = $2, finished_at = $2 where request_id = $1",
                *(request_id, moment - timedelta(milliseconds=20)),
            )
            await self.harness.owner.execute(
                "alter table predictu_dispatch.attempt enable always trigger attempt_only_grows"
            )

    async def _age_resolution(self, life: History) -> None:
        async with self.harness.owner.transaction():
            table = "predictu_dispatch.intervention"
            await self.harness.owner.execute(f"alter table {table} disable trigger intervention_only_grows")
            await self.harness.owner.execute(
                f"update {table} set done_at = $2 where request_id = $1",  # noqa: S608 - a constant
                *(life.requests[-1], life.resolved_at),
            )
            await self.harness.owner.execute(f"alter table {table} enable always trigger intervention_only_grows")

    async def _made(self, life: History, outcome: Callable[..., Report] = delivered, **fields: Any) -> None:
        """The bet is placed, with one attempt."""
        assert life.bet_id
        life.requests.append(await self.harness.place(life.bet_id))
        await self.harness.attempt(life.requests[-1], outcome, **fields)

    async def _ended(self, life: History, method: str, *outcome: Callable[..., Report]) -> None:
        assert life.bet_id
        life.requests.append(await self.harness.end(method, life.bet_id))
        for one in outcome:
            await self.harness.attempt(life.requests[-1], one)

    async def _won(self, life: History) -> None:
        await self._made(life)
        await self._ended(life, "BET_WIN", delivered)

    async def _lost_after_retries(self, life: History) -> None:
        await self._made(life)
        await self._ended(life, "BET_LOSE", retried, retried, delivered)

    async def _refused(self, life: History) -> None:
        await self._made(life, rejected)

    async def _rolled_back(self, life: History) -> None:
        await self._made(life, exhausted)
        [rollback] = await self.harness.rollbacks(life.bet_id or "")
        life.requests.append(rollback["request_id"])
        await self.harness.attempt(life.requests[-1], delivered)

    async def _never_sent(self, life: History) -> None:
        assert life.bet_id
        life.requests.append(await self.harness.place(life.bet_id))
        await self.harness.rollback(life.bet_id)

    async def _resolved(self, life: History) -> None:
        await self._in_review(life)
        await self.harness.daemon.execute(
            "select predictu_dispatch.resolve_callback($1, $2, 'paid by hand', 'alice@desk')",
            *(OPERATOR, life.requests[-1]),
        )
        life.resolved_at = datetime.now(UTC)

    async def _adopted_and_won(self, life: History) -> None:
        await self.harness.producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)", OPERATOR, life.bet_id, uuid.uuid4()
        )
        await self._ended(life, "BET_WIN", delivered)

    async def _balance(self, life: History) -> None:
        params = {"player_id": "p1", "currency": "EUR"}
        life.requests.append(await enqueue(self.harness.producer, "BALANCE", params))
        await self.harness.attempt(life.requests[-1], delivered)

    async def _ping(self, life: History) -> None:
        life.requests.append(await enqueue(self.harness.producer, "PING", {}))
        await self.harness.attempt(life.requests[-1], delivered)

    async def _open(self, life: History) -> None:
        await self._made(life)

    async def _placing(self, life: History) -> None:
        await self._made(life, retried, due_in_s=3e8)

    async def _waiting(self, life: History) -> None:
        await self._placing(life)
        await self._ended(life, "BET_WIN")

    async def _closing(self, life: History) -> None:
        await self._made(life)
        assert life.bet_id
        life.requests.append(await self.harness.end("BET_WIN", life.bet_id))
        await self.harness.attempt(life.requests[-1], retried, due_in_s=3e8)

    async def _in_review(self, life: History) -> None:
        await self._made(life)
        await self._ended(life, "BET_WIN", retried, exhausted)

    async def _stake_missing(self, life: History) -> None:
        """The operator confirmed the debit and later knows of none: closed, and still a person's."""
        await self._made(life)
        assert life.bet_id
        rollback = await self.harness.rollback(life.bet_id)
        assert rollback is not None
        life.requests.append(rollback)
        await self.harness.attempt(rollback, _nothing_to_reverse)


def _nothing_to_reverse(lease: Any, **fields: Any) -> Report:
    return report(lease, state="delivered", verdict="delivered", state_reason="nothing_to_reverse", **fields)


def requests_of(lives: Iterable[History]) -> set[uuid.UUID]:
    return {request_id for life in lives for request_id in life.requests}
