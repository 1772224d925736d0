"""Simulated daemons that share an operator's limits through heartbeats.

They follow the rules of flow/admission.py and know nothing of the SQL, so each checks the other.
"""

import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, SHARE_VALID_S
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Connection

NAMES = ("d-0", "d-1", "d-2", "d-3")
OPERATORS = ("op_a", "op_b")
KINDS = ("interactive_slots", "settlement_slots", "requests_per_s")
Limits = tuple[int, int, float]
"""One operator's limits in its file: interactive slots, settlement slots, requests per second.

A rate of 0 means no limit.
"""
Amounts = tuple[float, float, float | None]
"""One daemon's share of these limits; a rate of None means no limit."""
NO_SHARE: Amounts = (0, 0, 0.0)


async def heartbeat(
    connection: Connection,
    name: str,
    session: uuid.UUID,
    limits: Mapping[str, Limits],
    used: Mapping[str, Amounts],
    *,
    clock_at_s: float | None = None,
) -> dict[str, tuple[Amounts, bool]]:
    """Sends a heartbeat as edge/postgres/fleet_store.py does.

    Returns each operator's share, and whether it is the fair one.
    """
    names = list(limits)
    columns: list[list[float | None]] = [[limits[one][n] for one in names] for n in range(3)]
    columns += [[used.get(one, NO_SHARE)[n] for one in names] for n in range(3)]
    rows = await connection.fetch(
        query("heartbeat"), name, session, "host", 42, "1.0", names, *columns, 1, clock_at_s, None, None
    )
    return {row["operator_id"]: (tuple(row[kind] for kind in KINDS), row["is_fair"]) for row in rows}


async def pass_time(owner: Connection, seconds: float) -> None:
    """Moves all timestamps of the daemon table into the past."""
    await owner.execute(
        "update predictu_dispatch.daemon set seen_at = seen_at - $1 * interval '1 second',"
        " present_since = present_since - $1 * interval '1 second', started_at = started_at - $1 * interval '1 second'",
        seconds,
    )


async def shares(owner: Connection) -> dict[str, dict[str, Amounts]]:
    """Returns the share table: for each operator, each daemon's share."""
    found: dict[str, dict[str, Amounts]] = {one: {} for one in OPERATORS}
    for row in await owner.fetch("select * from predictu_dispatch.share"):
        found[row["operator_id"]][row["instance"]] = tuple(row[kind] for kind in KINDS)
    return found


def expected_split(limit: float, names: Iterable[str], *, rate: float) -> dict[str, float]:
    """Splits the limit one by one in the order of the names; the first also gets the fraction.

    With a rate, only as many daemons take part as get 20/3 requests per second each, at least one.
    """
    parts = dict.fromkeys(sorted(names), 0.0)
    active = [name for n, name in enumerate(parts) if n == 0 or rate == 0 or 3 * rate >= 20 * (n + 1)]
    for _, name in zip(range(int(limit)), itertools.cycle(active), strict=False):
        parts[name] += 1
    parts[active[0]] = limit - sum(part for name, part in parts.items() if name != active[0])
    return parts


def total(amounts: Iterable[Amounts], kind: int) -> float:
    return sum(amount[kind] or 0 for amount in amounts)


@dataclass
class PendingHeartbeat:
    """A heartbeat from its sending until its answer is read."""

    sent_at_s: float
    limits: dict[str, Limits]
    used: dict[str, Amounts]
    answer: dict[str, tuple[Amounts, bool]] | None = None


@dataclass
class SimulatedDaemon:
    """One daemon that follows the rules of flow/admission.py, in simulated seconds."""

    name: str
    session: uuid.UUID
    limits: dict[str, Limits]
    shares: dict[str, Amounts] = field(default_factory=dict)
    valid_until_s: float = 0.0
    in_flight: dict[str, list[int]] = field(default_factory=lambda: {one: [0, 0] for one in OPERATORS})
    lost: dict[str, list[int]] = field(default_factory=lambda: {one: [0, 0] for one in OPERATORS})
    """Attempts in flight from before the share expired: they still run but no longer count."""
    pending: PendingHeartbeat | None = None

    def usable(self, operator_id: str, now_s: float) -> Amounts:
        is_valid = now_s < self.valid_until_s and operator_id in self.shares
        return self.shares[operator_id] if is_valid else NO_SHARE

    def uses(self, operator_id: str, now_s: float) -> Amounts:
        """Returns what it has in flight or may still start."""
        share, busy = self.usable(operator_id, now_s), self.in_flight[operator_id]
        return max(share[0], busy[0]), max(share[1], busy[1]), share[2]

    def send(self, now_s: float) -> None:
        used = {one: self.uses(one, now_s) for one in OPERATORS}
        self.pending = PendingHeartbeat(sent_at_s=now_s, limits=dict(self.limits), used=used)

    def receive(self) -> None:
        assert self.pending is not None
        if self.pending.answer is not None:
            self.shares = {one: share for one, (share, _) in self.pending.answer.items()}
            self.valid_until_s = self.pending.sent_at_s + SHARE_VALID_S
        self.pending = None


@dataclass
class FleetMember:
    """A daemon on a real connection that uses all of its share, or the amount given."""

    connection: Connection
    name: str
    limits: Limits
    session: uuid.UUID = field(default_factory=uuid.uuid4)
    share: Amounts = NO_SHARE
    is_fair: bool = False

    async def heartbeat(self, used: Amounts | None = None) -> Amounts:
        answer = await heartbeat(
            self.connection, self.name, self.session, {"op_a": self.limits}, {"op_a": used or self.share}
        )
        self.share, self.is_fair = answer["op_a"]
        return self.share


def fleet_members(daemons: Sequence[Connection], limits: Limits) -> list[FleetMember]:
    return [FleetMember(connection, name, limits) for connection, name in zip(daemons, NAMES, strict=False)]


async def exchange_heartbeats(owner: Connection, daemons: Sequence[FleetMember], rounds: int = 4) -> None:
    """Every daemon sends a heartbeat in each round, one heartbeat interval apart."""
    for _ in range(rounds):
        await pass_time(owner, HEARTBEAT_INTERVAL_S)
        for daemon in daemons:
            await daemon.heartbeat()
