"""Daemons without the daemon: what each of them tells heartbeat() and may use, by the rules of flow/admission.py alone.

Written from those rules and not from the SQL, so that each is a witness against the other.
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
"""Of one operator as a file says them: interactive slots, settlement slots, requests a second; a rate of 0 is none."""
Amounts = tuple[float, float, float | None]
"""The same kinds as one daemon's share; a rate of None is unlimited."""
NO_SHARE: Amounts = (0, 0, 0.0)


async def heartbeat(
    connection: Connection, name: str, session: uuid.UUID, limits: Mapping[str, Limits], used: Mapping[str, Amounts]
) -> dict[str, tuple[Amounts, bool]]:
    """Announced as by edge/postgres/fleet_store.py; each operator's share, and whether it is the fair one."""
    names = list(limits)
    columns: list[list[float | None]] = [[limits[one][n] for one in names] for n in range(3)]
    columns += [[used.get(one, NO_SHARE)[n] for one in names] for n in range(3)]
    rows = await connection.fetch(query("heartbeat"), name, session, "host", 42, "1.0", names, *columns, 1)
    return {row["operator_id"]: (tuple(row[kind] for kind in KINDS), row["is_fair"]) for row in rows}


async def pass_time(owner: Connection, seconds: float) -> None:
    """Everything that daemons have written down is so much longer ago."""
    await owner.execute(
        "update predictu_dispatch.daemon set seen_at = seen_at - $1 * interval '1 second',"
        " here_since = here_since - $1 * interval '1 second', started_at = started_at - $1 * interval '1 second'",
        seconds,
    )


async def shares(owner: Connection) -> dict[str, dict[str, Amounts]]:
    """Who has what of which operator, as the database says."""
    found: dict[str, dict[str, Amounts]] = {one: {} for one in OPERATORS}
    for row in await owner.fetch("select * from predictu_dispatch.share"):
        found[row["operator_id"]][row["instance"]] = tuple(row[kind] for kind in KINDS)
    return found


def expected_split(limit: float, names: Iterable[str], *, rate: float) -> dict[str, float]:
    """The limit split one by one in the order of the names; the first gets what is less than one.

    With a rate, only as many sit at the table as would get 20/3 requests a second or more, or one.
    """
    hands = dict.fromkeys(sorted(names), 0.0)
    players = [name for n, name in enumerate(hands) if n == 0 or rate == 0 or 3 * rate >= 20 * (n + 1)]
    for _, name in zip(range(int(limit)), itertools.cycle(players), strict=False):
        hands[name] += 1
    hands[players[0]] = limit - sum(hand for name, hand in hands.items() if name != players[0])
    return hands


def total(amounts: Iterable[Amounts], kind: int) -> float:
    return sum(amount[kind] or 0 for amount in amounts)


@dataclass
class PendingHeartbeat:
    """On its way: asked with these words, then in the database, then heard."""

    asked_at_s: float
    limits: dict[str, Limits]
    used: dict[str, Amounts]
    heard: dict[str, tuple[Amounts, bool]] | None = None


@dataclass
class SimulatedDaemon:
    """One daemon by the rules of flow/admission.py; times are seconds of the play."""

    name: str
    session: uuid.UUID
    limits: dict[str, Limits]
    shares: dict[str, Amounts] = field(default_factory=dict)
    valid_until_s: float = 0.0
    in_flight: dict[str, list[int]] = field(default_factory=lambda: {one: [0, 0] for one in OPERATORS})
    lost: dict[str, list[int]] = field(default_factory=lambda: {one: [0, 0] for one in OPERATORS})
    """Of those in flight, the ones from before a silence that cost the share: nobody can call them back."""
    under_way: PendingHeartbeat | None = None

    def usable(self, operator_id: str, now_s: float) -> Amounts:
        is_valid = now_s < self.valid_until_s and operator_id in self.shares
        return self.shares[operator_id] if is_valid else NO_SHARE

    def uses(self, operator_id: str, now_s: float) -> Amounts:
        """What it has under way or may fill at this moment."""
        share, busy = self.usable(operator_id, now_s), self.in_flight[operator_id]
        return max(share[0], busy[0]), max(share[1], busy[1]), share[2]

    def ask(self, now_s: float) -> None:
        mine = {one: self.uses(one, now_s) for one in OPERATORS}
        self.under_way = PendingHeartbeat(asked_at_s=now_s, limits=dict(self.limits), used=mine)

    def hear(self) -> None:
        assert self.under_way is not None
        if self.under_way.heard is not None:
            self.shares = {one: share for one, (share, _) in self.under_way.heard.items()}
            self.valid_until_s = self.under_way.asked_at_s + SHARE_VALID_S
        self.under_way = None


@dataclass
class FleetMember:
    """A daemon that uses all it may, or as much as it is told."""

    connection: Connection
    name: str
    limits: Limits
    session: uuid.UUID = field(default_factory=uuid.uuid4)
    share: Amounts = NO_SHARE
    is_fair: bool = False

    async def heartbeat(self, used: Amounts | None = None) -> Amounts:
        heard = await heartbeat(
            self.connection, self.name, self.session, {"op_a": self.limits}, {"op_a": used or self.share}
        )
        self.share, self.is_fair = heard["op_a"]
        return self.share


def fleet_members(daemons: Sequence[Connection], limits: Limits) -> list[FleetMember]:
    return [FleetMember(connection, name, limits) for connection, name in zip(daemons, NAMES, strict=False)]


async def exchange_heartbeats(owner: Connection, daemons: Sequence[FleetMember], rounds: int = 4) -> None:
    """A second between two rounds, as in life."""
    for _ in range(rounds):
        await pass_time(owner, HEARTBEAT_INTERVAL_S)
        for daemon in daemons:
            await daemon.heartbeat()
