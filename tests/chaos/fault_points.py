"""The named points of a daemon's way at which a fault may happen, and how faults are spelled.

The product knows nothing of this: a point is one of its methods, which only the test build (armed_daemon.py) wraps.

    PREDICTU_DISPATCH_FAULT=sent:freeze
    PREDICTU_DISPATCH_FAULT=claimed:kill:3,before_settle:cut:2

Each is POINT:ACTION[:NTH]: the action happens once, at the NTH passage of the point in this process, 1 being the first;
where there is no connection to cut at that moment, at the next passage at which there is one.
"""

import asyncio
import functools
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from predictu_dispatch.core.callback import Evidence
from tests.support.daemons import FAULT_VARIABLE

_Method = Callable[..., Coroutine[Any, Any, Any]]


class Action(StrEnum):
    """What happens to the process."""

    KILL = "kill"
    FREEZE = "freeze"
    CUT = "cut"


MEANING_OF_ACTIONS: Final = {
    Action.KILL: "SIGKILL to itself",
    Action.FREEZE: "SIGSTOP to itself; whoever armed it sends SIGCONT",
    Action.CUT: "every connection to Postgres is shut down at once",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment just after a method of the product has returned something that `counts`.

    Or just `before` it runs, where its first argument counts.
    """

    meaning: str
    owner: str
    method: str
    before: bool = False
    counts: Callable[[Any], bool] = lambda _: True

    def find(self) -> tuple[type, _Method]:
        """The class and its method as they are now. Raises VanishedPointError."""
        try:
            owner = pkgutil.resolve_name(self.owner)
        except (ImportError, AttributeError) as error:
            raise VanishedPointError(f"there is no {self.owner} any more ({error}): {self.meaning!r}") from error
        method = vars(owner).get(self.method)
        if not inspect.iscoroutinefunction(method):
            raise VanishedPointError(f"{self.owner} has no method {self.method} to await any more: {self.meaning!r}")
        return owner, method


_OUTBOX: Final = "predictu_dispatch.edge.postgres.outbox:Outbox"
_ROSTER: Final = "predictu_dispatch.edge.postgres.fleet_store:FleetStore"
_TRANSPORT: Final = "predictu_dispatch.edge.http.transport"

POINTS: Final = {
    "claimed": Point(
        meaning="a claim has committed and its rows came back; nothing was sent",
        owner=_OUTBOX,
        method="claim",
        counts=bool,
    ),
    "signed": Point(
        meaning="the token is made; nothing was sent",
        owner="predictu_dispatch.flow.courier:Courier",
        method="_token",
    ),
    "sent": Point(
        meaning="the last byte of the request is in the socket",
        owner=f"{_TRANSPORT}:_WatchedRequest",
        method="send",
    ),
    "answered": Point(
        meaning="the whole answer was read; nothing is judged yet",
        owner=f"{_TRANSPORT}:Transport",
        method="post",
        counts=lambda exchange: exchange.evidence is Evidence.ANSWERED,
    ),
    "before_settle": Point(
        meaning="a batch is about to be settled, with an answer among it",
        owner=_OUTBOX,
        method="settle",
        before=True,
        counts=lambda attempts: any(attempt.exchange.evidence is Evidence.ANSWERED for attempt in attempts),
    ),
    "after_settle": Point(
        meaning="a batch is settled and committed; nobody in this process knows yet",
        owner=_OUTBOX,
        method="settle",
    ),
    "reaping": Point(
        meaning="leases that ran out were read; nothing is settled yet",
        owner=_OUTBOX,
        method="expired_leases",
        counts=bool,
    ),
    "expiring": Point(
        meaning="deadlines that passed are about to be looked for",
        owner=_OUTBOX,
        method="expire",
        before=True,
    ),
    "expired": Point(
        meaning="callbacks were ended by their deadline and it is committed; nobody in this process knows yet",
        owner=_OUTBOX,
        method="expire",
        counts=bool,
    ),
    "announcing": Point(
        meaning="the daemon is about to tell the fleet that it is alive",
        owner=_ROSTER,
        method="announce",
        before=True,
    ),
    "deciding": Point(
        meaning="the monitor has decided on circuits or PINGs; nothing is written yet",
        owner=_ROSTER,
        method="write_circuits",
        before=True,
    ),
    "draining": Point(
        meaning="SIGTERM came and the drain begins",
        owner="predictu_dispatch.daemon:Daemon",
        method="_drain",
        before=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One action at one passage of one point."""

    point: str
    action: Action
    nth: int = 1


class FaultValueError(ValueError):
    """The variable cannot be read; says every wrong part and all that is allowed."""


class VanishedPointError(Exception):
    """The product has no such method any more, so the point would never be passed."""


def parse_faults(value: str) -> tuple[Fault, ...]:
    """The faults that the variable asks for, at least one. Raises FaultValueError."""
    faults, wrong = [], []
    for part in value.split(","):
        try:
            faults.append(_fault(part.strip()))
        except ValueError as error:
            wrong.append(f"{FAULT_VARIABLE}: {part.strip()!r}: {error}")
    if wrong:
        raise FaultValueError("\n".join([*wrong, "", _allowed()]))
    return tuple(faults)


def _fault(part: str) -> Fault:
    point, _, rest = part.partition(":")
    action, has_nth, nth = rest.partition(":")
    if point not in POINTS:
        raise ValueError(f"{point!r} is no point")
    if action not in set(Action):
        raise ValueError(f"{action!r} is no action")
    if has_nth and not (nth.isascii() and nth.isdecimal() and int(nth) > 0):
        raise ValueError(f"{nth!r} is no passage; they are counted from 1")
    return Fault(point=point, action=Action(action), nth=int(nth) if has_nth else 1)


def _allowed() -> str:
    points = [f"  {name:14} {point.meaning}" for name, point in POINTS.items()]
    actions = [f"  {action:14} {meaning}" for action, meaning in MEANING_OF_ACTIONS.items()]
    return "\n".join(
        ["Allowed is POINT:ACTION[:NTH], several separated by commas. Points:", *points, "Actions:", *actions]
    )


def arm(faults: Iterable[Fault], happen: Callable[[Fault], bool]) -> None:
    """`happen(fault)` is called at the moment of each, in the process's own loop, and again where it says False.

    Raises VanishedPointError where the method of any point is gone, of those that nobody asked for as well.
    """
    for point in POINTS.values():
        point.find()
    owner, send = POINTS["sent"].find()
    owner.send = _noted_until_it_has_left(send)  # type: ignore[attr-defined]
    for fault in faults:
        point = POINTS[fault.point]
        # Found anew: another fault may have wrapped it a moment ago.
        owner, method = point.find()
        setattr(owner, point.method, _watched(method, point, fault, happen))


_leaving: set[object] = set()
"""Requests that may leave, and whose last byte is not in the socket yet."""


def _noted_until_it_has_left(send: _Method) -> _Method:
    @functools.wraps(send)
    async def noted(request: Any, connection: Any) -> Any:
        _leaving.add(request)
        try:
            response = await send(request, connection)
            # The body is written by a task of aiohttp's, and the loop keeps what is written until its turn ends.
            if request._writer is not None:
                await asyncio.wait([request._writer])
            while (transport := connection.transport) is not None and transport.get_write_buffer_size():  # noqa: ASYNC110 - as said
                await asyncio.sleep(0)
            return response
        finally:
            _leaving.discard(request)

    return noted


async def _nothing_leaves() -> None:
    """What is frozen between its last look at the clock and its socket leaves when it thaws, and nobody can help it."""
    while _leaving:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)


def _watched(method: _Method, point: Point, fault: Fault, happen: Callable[[Fault], bool]) -> _Method:
    passages = itertools.count(1)
    is_over = False

    async def passed() -> None:
        nonlocal is_over
        if next(passages) < fault.nth or is_over:
            return
        is_over = True
        if fault.action is Action.FREEZE:
            await _nothing_leaves()
        is_over = happen(fault)

    @functools.wraps(method)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        if point.before and point.counts(args[1]):
            await passed()
        result = await method(*args, **kwargs)
        if not point.before and point.counts(result):
            await passed()
        return result

    return watched
