"""The fault points: named methods of the daemon at which a fault can happen.

Only the test build (armed_daemon.py) wraps these methods; the product has no code for it.

    PREDICTU_DISPATCH_FAULT=sent:freeze
    PREDICTU_DISPATCH_FAULT=claimed:kill:3,before_settle:cut:2

Each is POINT:ACTION[:NTH]: the action happens once, at the NTH pass of the point in this process,
counted from 1. If there is no connection to cut, it happens at the next pass that has one.
"""

import asyncio
import functools
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import KW_ONLY, dataclass
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
    Action.FREEZE: "SIGSTOP to itself; the test sends SIGCONT",
    Action.CUT: "shut down every connection to Postgres",
}


@dataclass(frozen=True, slots=True)
class Point:
    """After a method returned a result that counts, or `before` it if its last argument counts."""

    meaning: str
    owner: str
    method: str
    _: KW_ONLY
    before: bool = False
    counts: Callable[[Any], bool] = lambda _: True

    def find(self) -> tuple[type, _Method]:
        """The class and its method as they are now. Raises MissingPointError."""
        try:
            owner = pkgutil.resolve_name(self.owner)
        except (ImportError, AttributeError) as error:
            raise MissingPointError(f"{self.owner} does not exist ({error}): {self.meaning!r}") from error
        method = vars(owner).get(self.method)
        if not inspect.iscoroutinefunction(method):
            raise MissingPointError(f"{self.owner} has no async method {self.method}: {self.meaning!r}")
        return owner, method


_OUTBOX: Final = "predictu_dispatch.edge.postgres.outbox:Outbox"
_FLEET_STORE: Final = "predictu_dispatch.edge.postgres.fleet_store:FleetStore"
_AUDIT_STORE: Final = "predictu_dispatch.edge.postgres.audit_store:AuditStore"
_HTTP: Final = "predictu_dispatch.edge.http"

POINTS: Final = {
    "claimed": Point("a claim is committed and its rows are read; nothing is sent", _OUTBOX, "claim", counts=bool),
    "signed": Point("the token is signed; nothing is sent", "predictu_dispatch.flow.courier:Courier", "_signature"),
    "sent": Point(
        "the last byte of the request is in the socket", f"{_HTTP}.connection:Connection", "answered", before=True
    ),
    "answered": Point(
        "the whole answer is read; nothing is judged",
        f"{_HTTP}.transport:Transport",
        "post",
        counts=lambda exchange: exchange.evidence is Evidence.ANSWERED,
    ),
    "before_settle": Point(
        "before a batch with an answer is settled",
        _OUTBOX,
        "settle",
        before=True,
        counts=lambda attempts: any(attempt.exchange.evidence is Evidence.ANSWERED for attempt in attempts),
    ),
    "after_settle": Point("a batch is settled and committed; the result is not used yet", _OUTBOX, "settle"),
    "reaping": Point("expired leases are read; nothing is settled", _OUTBOX, "expired_leases", counts=bool),
    "expiring": Point("before overdue callbacks are ended", _OUTBOX, "expire", before=True),
    "expired": Point(
        "overdue callbacks are ended and committed; the result is not used yet", _OUTBOX, "expire", counts=bool
    ),
    "heartbeat": Point("before a heartbeat", _FLEET_STORE, "heartbeat", before=True),
    "deciding": Point(
        "the monitor has decided on circuits; nothing is written", _FLEET_STORE, "write_circuits", before=True
    ),
    "sealing": Point(
        "new rows of the audit are read; nothing is appended to a log",
        _AUDIT_STORE,
        "unsealed",
        counts=lambda turn: turn is not None and turn.entries > 0,
    ),
    "appending": Point(
        "the grown logs are signed; nothing is appended", _AUDIT_STORE, "append", before=True, counts=bool
    ),
    "appended": Point(
        "logs are appended and committed; nothing else is done yet",
        "predictu_dispatch.flow.sealer:Sealer",
        "_turn",
        counts=lambda turn: turn is not None and turn.entries > 0,
    ),
    "draining": Point("after SIGTERM, before the drain", "predictu_dispatch.daemon:Daemon", "_drain", before=True),
}


SEALING_POINTS: Final = ("sealing", "appending", "appended")
"""Around the sealer's two statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One action at one pass of one point."""

    point: str
    action: Action
    nth: int = 1


class FaultValueError(ValueError):
    """The variable is malformed; the message has every error and the syntax."""


class MissingPointError(Exception):
    """The product has no such method, so the point would never be passed."""


def parse_faults(value: str) -> tuple[Fault, ...]:
    """Parse the variable. Raises FaultValueError."""
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
        raise ValueError(f"{point!r} is no fault point")
    if action not in set(Action):
        raise ValueError(f"{action!r} is no action")
    if has_nth and not (nth.isascii() and nth.isdecimal() and int(nth) > 0):
        raise ValueError(f"{nth!r} is not a pass number; passes count from 1")
    return Fault(point=point, action=Action(action), nth=int(nth) if has_nth else 1)


def _allowed() -> str:
    points = [f"  {name:14} {point.meaning}" for name, point in POINTS.items()]
    actions = [f"  {action:14} {meaning}" for action, meaning in MEANING_OF_ACTIONS.items()]
    return "\n".join(
        ["Allowed is POINT:ACTION[:NTH], several separated by commas. Points:", *points, "Actions:", *actions]
    )


def arm(faults: Iterable[Fault], happen: Callable[[Fault], bool]) -> None:
    """Call `happen(fault)` at each fault, and again at the next pass if it returns False.

    Raises MissingPointError if the method of any point is missing, also of points without a fault.
    """
    for point in POINTS.values():
        point.find()
    for fault in faults:
        point = POINTS[fault.point]
        # Another fault may have wrapped the method already.
        owner, method = point.find()
        setattr(owner, point.method, _wrapped(method, point, fault, happen))
    # Outermost, so that the faults happen once the request is in the socket.
    owner, answered = POINTS["sent"].find()
    owner.answered = _once_sent(answered)  # type: ignore[attr-defined]


_sending: set[object] = set()
"""Connections with a request whose last byte is not in the socket yet."""


def _once_sent(answered: _Method) -> _Method:
    @functools.wraps(answered)
    async def once_sent(connection: Any) -> None:
        _sending.add(connection)
        try:
            # The event loop may buffer it; uvloop writes at the end of each turn.
            while connection._transport.get_write_buffer_size():  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)
        finally:
            _sending.discard(connection)
        await answered(connection)

    return once_sent


async def _wait_until_sent() -> None:
    """Wait, because a request past its last check of the lease is sent after the freeze."""
    while _sending:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)


def _wrapped(method: _Method, point: Point, fault: Fault, happen: Callable[[Fault], bool]) -> _Method:
    passes = itertools.count(1)
    is_over = False

    async def on_pass() -> None:
        nonlocal is_over
        if next(passes) < fault.nth or is_over:
            return
        is_over = True
        if fault.action is Action.FREEZE:
            await _wait_until_sent()
        is_over = happen(fault)

    @functools.wraps(method)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if point.before and point.counts(args[-1]):
            await on_pass()
        result = await method(*args, **kwargs)
        if not point.before and point.counts(result):
            await on_pass()
        return result

    return wrapped
