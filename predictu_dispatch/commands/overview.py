"""What `status` and `top` show: operators with their backlog, daemons, and what needs review."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from predictu_dispatch.commands.output import Row
from predictu_dispatch.commands.texts import first_line
from predictu_dispatch.core.breaker import Circuit, Health
from predictu_dispatch.core.operator_problems import OperatorView, Problem, problems
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

REVIEW_READ_MAX: Final = 20
"""How many callbacks of the review list are read without --all; the groups count all of them."""
LANES: Final = ("interactive", "settlement")
OPEN_STATES: Final = ("waiting", "ready", "in_flight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator with its two lanes, and what is wrong with it."""

    lanes: tuple[Row, ...]
    problems: tuple[Problem, ...]

    @property
    def row(self) -> Row:
        """The columns that do not depend on the lane."""
        return self.lanes[0]

    @property
    def operator_id(self) -> str:
        return str(self.row["operator_id"])

    @property
    def backlog(self) -> int:
        """Callbacks that are not final."""
        return sum(lane[state] for lane in self.lanes for state in OPEN_STATES)

    @property
    def oldest_due_s(self) -> float | None:
        ages_s = [lane["oldest_due_s"] for lane in self.lanes if lane["oldest_due_s"] is not None]
        return max(ages_s, default=None)

    def total(self, column: str) -> int:
        return sum(lane[column] for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the database answered at `at`; `at_s` is the same time on the monotonic clock.

    `review` are the oldest callbacks of the review list, `review_groups` counts all by cause.
    """

    at: datetime
    at_s: float
    lanes: Sequence[Row] = field(default_factory=tuple)
    daemons: Sequence[Row] = field(default_factory=tuple)
    review: Sequence[Row] = field(default_factory=tuple)
    review_groups: Sequence[Row] = field(default_factory=tuple)
    groups: Sequence[Row] = field(default_factory=tuple)

    @property
    def backlog(self) -> int:
        """Callbacks that are not final."""
        return sum(lane[state] for lane in self.lanes for state in OPEN_STATES)

    @property
    def in_review(self) -> int:
        return sum(group["callbacks"] for group in self.review_groups)

    @property
    def is_fleet_live(self) -> bool:
        return any(daemon["is_live"] for daemon in self.daemons)

    def operators(self) -> list[Operator]:
        """The operators in the order of their ids."""
        lanes: dict[str, list[Row]] = {}
        for lane in self.lanes:
            lanes.setdefault(lane["operator_id"], []).append(lane)
        return [
            Operator(lanes=tuple(own), problems=problems(_view(own, is_fleet_live=self.is_fleet_live)))
            for own in lanes.values()
        ]

    def totals(self) -> dict[str, int]:
        """The sums over all operators, for programs."""
        operators = self.operators()
        return {
            "operators": len(operators),
            "operators_with_problems": sum(bool(operator.problems) for operator in operators),
            "daemons_running": sum(bool(daemon["is_live"]) for daemon in self.daemons),
            **{name: sum(lane[name] for lane in self.lanes) for name in (*OPEN_STATES, "unknown_effect")},
            "needs_review": self.in_review,
        }


async def read_overview(db: Database, *, at_s: float = 0.0, review_max: int | None = REVIEW_READ_MAX) -> Overview:
    """Rows for each operator and lane, the daemons of a day, and the review list, oldest first."""
    operators = [
        {**row, "last_failure_answer": first_line(row["last_failure_answer"])}
        for row in await db.fetch(query("operators"))
    ]
    known = {operator["operator_id"] for operator in operators}
    # An operator that was registered between the two queries appears the next time.
    groups = [dict(row) for row in await db.fetch(query("callback_groups")) if row["operator_id"] in known]
    daemons = await db.fetch(query("status_daemons"))
    review = await db.fetch(query("needs_review"), review_max)
    review_groups = await db.fetch(query("needs_review_groups"))
    return Overview(
        at=datetime.now(UTC),
        at_s=at_s,
        lanes=_lanes(operators, groups),
        daemons=[dict(row) for row in daemons],
        review=[dict(row) for row in review],
        review_groups=[dict(row) for row in review_groups],
        groups=groups,
    )


def _lanes(operators: Sequence[Row], groups: Iterable[Row]) -> list[dict[str, Any]]:
    lanes = {(operator["operator_id"], lane): _empty_lane(operator, lane) for operator in operators for lane in LANES}
    for group in groups:
        lane = lanes[group["operator_id"], group["lane"]]
        lane[group["state"]] += group["callbacks"]
        lane["unknown_effect"] += group["unknown_effect"]
        if lane["unknown_request_id"] is None and group["unknown_request_id"] is not None:
            # From the largest group, because the groups come largest first.
            lane["unknown_request_id"], lane["unknown_reason"] = group["unknown_request_id"], group["reason"]
        # Negative if even the first callback is due later.
        if group["oldest_due_s"] is not None and group["oldest_due_s"] >= 0:
            lane["oldest_due_s"] = max(group["oldest_due_s"], lane["oldest_due_s"] or 0.0)
    return list(lanes.values())


def _empty_lane(operator: Row, lane: str) -> dict[str, Any]:
    return {
        "operator_id": operator["operator_id"],
        "lane": lane,
        "waiting": 0,
        "ready": 0,
        "in_flight": 0,
        **{name: operator[f"{lane}_{name}"] for name in ("slots", "backoff_until", "backoff_for_s")},
        "oldest_due_s": None,
        "unknown_effect": 0,
        "unknown_request_id": None,
        "unknown_reason": None,
        **{name: value for name, value in operator.items() if not name.startswith(LANES)},
    }


def _view(lanes: Sequence[Row], *, is_fleet_live: bool) -> OperatorView:
    row = lanes[0]
    return OperatorView(
        enabled=row["enabled"],
        is_paused=row["paused_at"] is not None,
        circuit=Circuit(row["circuit"]),
        health=Health(row["health"]),
        is_fleet_live=is_fleet_live,
        is_served=bool(row["daemons"]),
        is_unreachable=bool(row["unreachable_from"]),
        is_backing_off=any(lane["backoff_for_s"] for lane in lanes),
        oldest_due_s=max((lane["oldest_due_s"] or 0.0 for lane in lanes), default=None),
        unknown_effect=sum(lane["unknown_effect"] for lane in lanes),
    )
