"""What daemons sent and which answers they read, as seen in the network.

A daemon sends its next request on a connection only after it has read the whole answer before it.
So an answer with a later request on its connection was read, and the audit must have it.
"""

import base64
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httptools

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.ledgers import AttemptRow, BetHistory


class Answered(NamedTuple):
    """One attempt that was answered; from a token whose jti names the attempt."""

    request_id: str
    attempt: int


@dataclass(slots=True)
class AnswerLog:
    """One operator's requests and answers; both grow while connections run."""

    read: set[Answered] = field(default_factory=set)
    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """For each request_id, when it was sent: numbers that grow with each request."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def number(self, request_id: str) -> None:
        self.sent[request_id].append(next(self._numbers))

    def connection(self) -> "ConnectionLog":
        return ConnectionLog(self)


class ConnectionLog:
    """Parses both directions of one connection; a message that cannot be parsed ends it."""

    def __init__(self, log: AnswerLog) -> None:
        self._log = log
        self._requests: Any = httptools.HttpRequestParser(_Requests(self))
        self._answers: Any = httptools.HttpResponseParser(_Answers(self))
        self._asked: Answered | None = None
        self._answered: Answered | None = None
        self._is_parsing = True

    def request(self, piece: bytes) -> None:
        self._feed(self._requests, piece)

    def answer(self, piece: bytes) -> None:
        self._feed(self._answers, piece)

    def _feed(self, parser: Any, piece: bytes) -> None:
        if self._is_parsing:
            try:
                parser.feed_data(piece)
            except httptools.HttpParserError:
                self._is_parsing = False

    def request_began(self) -> None:
        if self._answered is not None:
            self._log.read.add(self._answered)
        self._answered = None

    def authorized(self, value: bytes) -> None:
        claims = value.split(b".")[1]
        jti = str(json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))["jti"])
        request_id, separator, attempt = jti.partition(":")
        self._log.number(request_id)
        self._asked = Answered(request_id, int(attempt)) if separator else None

    def answer_ended(self) -> None:
        self._answered, self._asked = self._asked, None


@dataclass(slots=True)
class _Requests:
    """httptools calls these for what a daemon sends."""

    connection: ConnectionLog

    def on_message_begin(self) -> None:
        self.connection.request_began()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self.connection.authorized(value)


@dataclass(slots=True)
class _Answers:
    """httptools calls this for what an operator sends."""

    connection: ConnectionLog

    def on_message_complete(self) -> None:
        self.connection.answer_ended()


def answers_check(
    read: Mapping[str, AnswerLog], attempts: Sequence[AttemptRow], *, ended_early: Collection[str]
) -> Check:
    """No answer that a daemon read is missing in the audit.

    `ended_early` are the daemons that were killed, or stopped before they had settled everything:
    what they had not settled is lost, and the reaper writes `interrupted` in their name.
    """
    audited = {(row.operator_id, row.request_id, row.attempt) for row in attempts if row.evidence == "answered"}
    excused = {
        (row.operator_id, row.request_id, row.attempt)
        for row in attempts
        if row.reason == "interrupted" and row.instance in ended_early
    }
    given = {(operator_id, *answered) for operator_id, log in read.items() for answered in log.read}
    missing = sorted(given - audited - excused)
    return Check(
        name="no answer that an operator gave is missing in the audit",
        rows=len(given),
        figures=f"{len(given)} answers read, {len(given & excused)} by daemons that were killed",
        faults=tuple(
            f"{operator_id} answered {request_id}, attempt {attempt}" for operator_id, request_id, attempt in missing
        ),
    )


def order_check(logs: Mapping[str, AnswerLog], histories: Sequence[BetHistory]) -> Check:
    """No debit is sent after its bet's terminal; as seen in the network, because clocks step."""
    compared, faults = 0, []
    for history in histories:
        if history.placement is None or history.terminal is None:
            continue
        sent = logs[history.bet.operator_id].sent
        debits, terminals = sent.get(history.placement.request_id), sent.get(history.terminal.request_id)
        if debits and terminals:
            compared += 1
            if max(debits) > min(terminals):
                faults.append(f"{history.bet.operator_id} {history.bet.bet_id}: debit sent after the terminal")
    return Check(
        name="no debit was sent after its terminal, as seen in the network",
        rows=compared,
        figures=f"{compared} bets with both",
        faults=tuple(faults),
    )
