"""Sends requests, each of them in the journal first and within the run's limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final, Protocol

from predictu_dispatch.certification.entries import OutcomeEntry, RequestEntry
from predictu_dispatch.certification.journal import Journal, RunRefusedError
from predictu_dispatch.certification.limits import BURST, Limits, RequestCapError
from predictu_dispatch.certification.observation import Outcome, Sent
from predictu_dispatch.certification.requests import Prepared, again

_BATCH: Final = BURST
"""Requests of a volley that share one sync of the journal."""
_IN_FLIGHT: Final = 16
_READ_TRIES: Final = 3
_READ_DELAY_S: Final = 0.3
_WORTH_REPEATING: Final = frozenset({Outcome.NOT_SENT, Outcome.NO_ANSWER, Outcome.TRY_AGAIN})


class SendsRequests(Protocol):
    """What is needed of `sender.Sender`."""

    async def send(self, prepared: Prepared) -> Sent:
        """Send one request."""
        ...

    async def send_at_once(self, prepared: Sequence[Prepared]) -> tuple[Sent, ...]:
        """Send all at the same moment, each on a connection of its own."""
        ...


class RecordingSender:
    """A sender for runs: what it sends is in the journal, on disk, before its first byte.

    Raises RequestCapError before a request above the cap, RunRefusedError if the journal cannot be
    written. Then the request was not sent.
    """

    def __init__(
        self, sender: SendsRequests, journal: Journal, limits: Limits, *, confirmed: list[Sent] | None = None
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._limits = limits
        self.confirmed: list[Sent] = [] if confirmed is None else confirmed
        """Every confirmed request that names a bet, in the order of the answers."""

    async def send(self, prepared: Prepared) -> Sent:
        """Send one request."""
        (n,) = await self._recorded([prepared])
        sent = await self._sender.send(prepared)
        self._record_outcomes([(n, sent)])
        return sent

    async def send_at_once(self, prepared: Sequence[Prepared]) -> tuple[Sent, ...]:
        """Send all at the same moment, each on a connection of its own."""
        numbers = await self._recorded(prepared)
        answered = await self._sender.send_at_once(prepared)
        self._record_outcomes(list(zip(numbers, answered, strict=True)))
        return answered

    async def send_volley(self, prepared: Sequence[Prepared], *, in_flight: int) -> tuple[Sent, ...]:
        """Send all, with at most this many in flight; return what came of them in their order."""
        answered: dict[int, Sent] = {}
        slots = asyncio.Semaphore(in_flight)

        async def send_one(n: int, index: int) -> None:
            try:
                answered[index] = await self._sender.send(prepared[index])
                self._record_outcomes([(n, answered[index])])
            finally:
                slots.release()

        refused: RequestCapError | RunRefusedError | None = None
        try:
            async with asyncio.TaskGroup() as sendings:
                for begin in range(0, len(prepared), _BATCH):
                    try:
                        numbers = await self._recorded(prepared[begin : begin + _BATCH])
                    except (RequestCapError, RunRefusedError) as error:
                        # What is in flight must end: its outcome is worth knowing.
                        refused = error
                        break
                    for index, n in enumerate(numbers, start=begin):
                        await slots.acquire()
                        sendings.create_task(send_one(n, index), name=f"send {prepared[index].name}")
        except* RunRefusedError as errors:
            refused = _first(errors)
        if refused is not None:
            raise refused
        return tuple(answered[index] for index in range(len(prepared)))

    async def _recorded(self, prepared: Sequence[Prepared]) -> list[int]:
        """Wait until the requests may be sent, and write them to the journal."""
        await asyncio.sleep(self._limits.take(len(prepared), time.monotonic()))
        entries = [RequestEntry(n=self._journal.next_n(), prepared=one) for one in prepared]
        # A read moves no money, so it may be lost.
        self._journal.append(entries, is_synced=any(one.bet_id for one in prepared))
        return [entry.n for entry in entries]

    def _record_outcomes(self, answered: Sequence[tuple[int, Sent]]) -> None:
        # Without a sync: a lost outcome is unknown, and is found out again by a repetition.
        self._journal.append([outcome_entry(n, sent) for n, sent in answered], is_synced=False)
        self.confirmed += [sent for _, sent in answered if sent.bet_id and sent.outcome is Outcome.CONFIRMED]


async def run_all(jobs: Iterable[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Await all jobs, some at a time. Raises RunRefusedError if one does."""
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def run_one(job: Callable[[], Coroutine[None, None, None]]) -> None:
        async with slots:
            await job()

    refused: RunRefusedError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(run_one(job), name="send")
    except* RunRefusedError as errors:
        refused = _first(errors)
    if refused is not None:
        raise refused


def _first(errors: BaseExceptionGroup[RunRefusedError]) -> RunRefusedError:
    error = errors.exceptions[0]
    return error if isinstance(error, RunRefusedError) else _first(error)


async def read_balance(sender: RecordingSender, request: Prepared) -> tuple[Sent, ...]:
    """Send a BALANCE until it is answered, as production does; return all sendings."""
    sendings = [await sender.send(request)]
    while sendings[-1].outcome in _WORTH_REPEATING and len(sendings) < _READ_TRIES:
        await asyncio.sleep(_READ_DELAY_S * len(sendings))
        number = len(sendings) + 1
        sendings.append(await sender.send(again(request, name=f"{request.name}-try-{number}", number=number)))
    return tuple(sendings)


def outcome_entry(n: int, sent: Sent) -> OutcomeEntry:
    """Return what the journal keeps of an answer."""
    return OutcomeEntry(
        n=n,
        outcome=sent.outcome,
        reason=sent.judgement.reason or "",
        status=sent.judgement.operator_status or "",
        http_status=sent.exchange.status,
    )
