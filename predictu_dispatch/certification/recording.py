"""Sends requests, each of them in the journal first and within the run's limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Final

from predictu_dispatch.certification.entries import OutcomeEntry, RequestEntry
from predictu_dispatch.certification.journal import Journal, RunRefusedError
from predictu_dispatch.certification.limits import Limits, RequestCapError
from predictu_dispatch.certification.observation import Outcome, Sent
from predictu_dispatch.certification.requests import Prepared, again
from predictu_dispatch.certification.sender import Sender

_IN_FLIGHT: Final = 16
_PUT_OFF_CODES: Final = frozenset({429, 503})
PUT_OFF_S_MAX: Final = 30.0
"""How long one request waits for an operator that puts it off, all its sendings together."""
_PUT_OFF_DELAY_S: Final = 0.5
_PUT_OFF_DELAY_MAX_S: Final = 5.0
"""Unless Retry-After says more."""
_READ_TRIES: Final = 3
_READ_DELAY_S: Final = 0.3
_WORTH_REPEATING: Final = frozenset({Outcome.NOT_SENT, Outcome.NO_ANSWER, Outcome.TRY_AGAIN})


class RecordingSender:
    """A sender for runs: what it sends is in the journal, on disk, before its first byte.

    Raises RequestCapError before a request above the cap, RunRefusedError if the journal cannot be
    written. Then the request was not sent.
    """

    def __init__(
        self, sender: Sender, journal: Journal, limits: Limits, *, confirmed: list[Sent] | None = None
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._limits = limits
        self.confirmed: list[Sent] = [] if confirmed is None else confirmed
        """Every confirmed request that names a bet, in the order of the answers."""
        self._is_waiting_in_vain = False
        """A request was put off until its time was over: none waits until one is answered."""
        self._further: Counter[str] = Counter()

    async def send(self, prepared: Prepared) -> Sent:
        """Send one request."""
        (n,) = await self._recorded([prepared])
        sent = await self._sender.send(prepared)
        self._record_outcomes([(n, sent)])
        return sent

    async def send_until_taken(self, prepared: Prepared, on_put_off: Callable[[Sent], None]) -> Sent:
        """Send one request; if it is put off, send it again later, as production does.

        `on_put_off` is called with each answer that puts it off, except the last one.
        """
        return await self._until_taken(await self.send(prepared), prepared, on_put_off)

    async def _until_taken(self, sent: Sent, prepared: Prepared, on_put_off: Callable[[Sent], None]) -> Sent:
        delay_s, waited_s = _PUT_OFF_DELAY_S, 0.0
        while puts_off(sent):
            wait_s = max(delay_s, sent.judgement.retry_after_s or 0.0)
            if self._is_waiting_in_vain or waited_s + wait_s > PUT_OFF_S_MAX:
                self._is_waiting_in_vain = True
                return sent
            on_put_off(sent)
            await asyncio.sleep(wait_s)
            waited_s += wait_s
            delay_s = min(2 * delay_s, _PUT_OFF_DELAY_MAX_S)
            sent = replace(await self.send(self._further_sending(prepared)), name=prepared.name)
        self._is_waiting_in_vain = False
        return sent

    def _further_sending(self, prepared: Prepared) -> Prepared:
        """Return the same bytes with a new token, which has the fault of the first one."""
        self._further[prepared.request_id] += 1
        number = self.next_number(prepared.request_id)
        sending = again(prepared, name=f"{prepared.name}-sending-{number}", number=number)
        return replace(sending, token=prepared.token, token_body=prepared.token_body)

    def next_number(self, request_id: str) -> int:
        """Return the number of the next sending of a request."""
        return len(self._journal.sendings_of(request_id)) + 1

    def further_sendings(self, request_id: str) -> int:
        """Return how often a request was sent again because it was put off."""
        return self._further[request_id]

    async def send_at_once(self, prepared: Sequence[Prepared]) -> tuple[Sent, ...]:
        """Send all at the same moment, each on a connection of its own."""
        numbers = await self._recorded(prepared)
        answered = await self._sender.send_at_once(prepared)
        self._record_outcomes(list(zip(numbers, answered, strict=True)))
        return answered

    async def send_batch(
        self, prepared: Sequence[Prepared], *, in_flight: int, on_put_off: Callable[[Sent], None] | None = None
    ) -> tuple[Sent, ...]:
        """Send all, with at most this many in flight; return what came of them in their order.

        With `on_put_off`, those that are put off are sent again later.
        """
        answered: dict[int, Sent] = {}
        slots = asyncio.Semaphore(in_flight)

        async def send_one(n: int, index: int) -> None:
            try:
                sent = answered[index] = await self._sender.send(prepared[index])
                self._record_outcomes([(n, sent)])
                if on_put_off is not None:
                    answered[index] = await self._until_taken(sent, prepared[index], on_put_off)
            except RequestCapError as error:
                caps.append(error)
            finally:
                slots.release()

        caps: list[RequestCapError] = []
        refused: RequestCapError | RunRefusedError | None = None
        begin = 0
        try:
            async with asyncio.TaskGroup() as sendings:
                while begin < len(prepared) and not caps:
                    try:
                        numbers = await self._recorded(prepared[begin : begin + self._limits.burst])
                    except (RequestCapError, RunRefusedError) as error:
                        # What is in flight must end: its outcome is worth knowing.
                        refused = error
                        break
                    for index, n in enumerate(numbers, start=begin):
                        await slots.acquire()
                        sendings.create_task(send_one(n, index), name=f"send {prepared[index].name}")
                    begin += len(numbers)
        except* RunRefusedError as errors:
            refused = _first(errors)
        if refused := refused or next(iter(caps), None):
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
        for _, sent in answered:
            if puts_off(sent):
                self._limits.slow_down(time.monotonic(), sent.judgement.retry_after_s or _PUT_OFF_DELAY_S)
        self.confirmed += [sent for _, sent in answered if sent.bet_id and sent.outcome is Outcome.CONFIRMED]


def puts_off(sent: Sent) -> bool:
    """Return True if the operator asks to send the request again later, by 429 or 503."""
    return sent.outcome is Outcome.TRY_AGAIN and sent.exchange.status in _PUT_OFF_CODES


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


async def read_balance(
    sender: RecordingSender, request: Prepared, on_put_off: Callable[[Sent], None] = lambda _: None
) -> tuple[Sent, ...]:
    """Send a BALANCE until it is answered, as production does; return all sendings."""
    sendings = [await sender.send_until_taken(request, on_put_off)]
    while sendings[-1].outcome in _WORTH_REPEATING and len(sendings) < _READ_TRIES:
        await asyncio.sleep(_READ_DELAY_S * len(sendings))
        number = sender.next_number(request.request_id)
        further = again(request, name=f"{request.name}-try-{len(sendings) + 1}", number=number)
        sendings.append(await sender.send_until_taken(further, on_put_off))
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
