"""An operator inside the test process: records every request, can hold answers, has a wallet.

It shares no code with the daemon and checks the contract: a fresh token bound to the body, the same
bytes for the same request_id, no debit after its rollback, no credit before its debit, one terminal
for each bet, one live attempt of a request. `faults` lists every breach.
"""

import asyncio
import hashlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jwt
from aiohttp import web

FUNDS = 1_000_000
"""Every player's initial balance in subunits."""
TOKEN_TTL_S = 30
"""Source: PROTOCOL.md, Signature."""
_TOKEN_AGE_MAX_S = 3.0
"""The token is made for this attempt; the seconds are for a loaded machine."""
_CREDITS = ("BET_WIN", "BET_SELL", "BET_REFUND")
_SETTLEMENTS = (*_CREDITS, "BET_LOSE")
_TERMINALS = (*_CREDITS, "BET_LOSE", "BET_ROLLBACK")


@dataclass(frozen=True)
class Request:
    body: bytes
    token: str
    arrived_at_s: float = field(default_factory=time.time)

    @cached_property
    def envelope(self) -> dict[str, Any]:
        envelope: dict[str, Any] = json.loads(self.body)
        return envelope

    @property
    def request_id(self) -> str:
        return str(self.envelope["request_id"])

    @property
    def method(self) -> str:
        return str(self.envelope["method"])


class Operator:
    """Answers at `url` from the wallet, or with what `answer` returns."""

    def __init__(self, operator_id: str, public_pem: bytes) -> None:
        self.operator_id = operator_id
        self.url = ""
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.balance: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.answer: Callable[[Request], web.Response | None] = lambda _: None
        # The time it takes for each answer; its requests in progress by lane, and the maximum of
        # these.
        self.answers_in_s = 0.0
        self.busy: Counter[str] = Counter()
        self.busiest: Counter[str] = Counter()
        self.public_pem = public_pem
        self._answers: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self._debits: dict[str, int] = {}
        self._debited: set[str] = set()
        self._reversed: set[str] = set()
        self._ended: dict[str, str] = {}
        self._holding = False
        self._held: list[asyncio.Event] = []
        self._held_by_id: dict[str, asyncio.Event] = {}

    def hold(self) -> None:
        """Books new requests at once and answers them only when they are released."""
        self._holding = True

    def stop_holding(self) -> None:
        """Answers new requests at once again; held ones stay held."""
        self._holding = False

    def release_first(self) -> None:
        """Answers the oldest held request."""
        self._held.pop(0).set()

    def release_only(self, request_ids: Iterable[object]) -> None:
        """Answers these held requests; the others stay held."""
        for request_id in request_ids:
            held = self._held_by_id.pop(str(request_id))
            self._held.remove(held)
            held.set()

    def release(self) -> None:
        """Answers all held requests and stops holding."""
        self.stop_holding()
        for held in self._held:
            held.set()
        self._held.clear()

    def refuse(self, status: str | None) -> None:
        """Answers every request with this status and books nothing; None ends it."""
        self.answer = lambda _: None if status is None else web.json_response({"status": status})

    def book(self, bet_id: str, placement_request_id: str, player_id: str, amount: int) -> None:
        """Books a debit from before the test, such as an adopted bet's."""
        self._debited.add(bet_id)
        self._debits[placement_request_id] = amount
        self.balance[player_id] -= amount

    def sent(self, request_id: object) -> list[Request]:
        return [request for request in self.requests if request.request_id == str(request_id)]

    async def receive(self, http: web.Request) -> web.StreamResponse:
        """Records, checks, books and answers one request."""
        request = Request(body=await http.read(), token=http.headers["Authorization"].removeprefix("Bearer "))
        self.requests.append(request)
        self._check_token(request)
        self.live[request.request_id] += 1
        lane = "settlement" if request.method in _SETTLEMENTS else "interactive"
        self.busy[lane] += 1
        self.busiest[lane] = max(self.busiest[lane], self.busy[lane])
        if self.live[request.request_id] > 1:
            self.faults.append(f"{request.method} {request.request_id} has two live attempts")
        try:
            answer = self.answer(request) or web.json_response(self.booked(request))
            if self.answers_in_s:
                await asyncio.sleep(self.answers_in_s)
            if self._holding:
                held = asyncio.Event()
                self._held.append(held)
                self._held_by_id[request.request_id] = held
                await held.wait()
        finally:
            self.live[request.request_id] -= 1
            self.busy[lane] -= 1
        return answer

    def _check_token(self, request: Request) -> None:
        claims = jwt.decode(request.token, self.public_pem, algorithms=["EdDSA"])
        age_s = request.arrived_at_s - claims.pop("iat")
        right = {
            "iss": "predictu",
            "sub": self.operator_id,
            "jti": request.request_id,
            "method": request.method,
            "digest": hashlib.sha256(request.body).hexdigest(),
        }
        lifetime_s = claims.pop("exp") - (request.arrived_at_s - age_s)
        if claims != right or abs(lifetime_s - TOKEN_TTL_S) > 0.001 or not -0.1 <= age_s <= _TOKEN_AGE_MAX_S:
            self.faults.append(f"token of {request.request_id}: {claims}, {age_s:.3f} s old, for {lifetime_s:.3f} s")

    def booked(self, request: Request) -> dict[str, Any]:
        """Books one request in the wallet; returns the answer."""
        params, player = request.envelope["params"], request.envelope["params"].get("player_id", "")
        if request.request_id in self._answers:
            body, answer = self._answers[request.request_id]
            if body != request.body:
                self.faults.append(f"{request.request_id} came with another body")
            return {**answer, "status": "DUPLICATE_TRANSACTION"}
        status = self._move(request, player, params)
        answer = {
            "status": status,
            "balance": FUNDS + self.balance[player],
            "transaction_id": f"tx-{len(self._answers)}",
        }
        self._answers[request.request_id] = (request.body, answer)
        return answer

    def _move(self, request: Request, player: str, params: dict[str, Any]) -> str:
        method, bet_id = request.method, params.get("bet_id", "")
        if method in _TERMINALS:
            if bet_id in self._ended:
                self.faults.append(f"{bet_id} ended with {self._ended[bet_id]} and then with {method}")
            self._ended[bet_id] = method
        if method == "BET_MAKE":
            if request.request_id in self._reversed or bet_id in self._ended:
                self.faults.append(f"{bet_id} was debited after its end")
            self._debited.add(bet_id)
            self._debits[request.request_id] = params["amount"]
            self.balance[player] -= params["amount"]
        elif method in _CREDITS:
            if bet_id not in self._debited:
                self.faults.append(f"{bet_id} got a credit before its debit")
            self.balance[player] += params["amount"]
        elif method == "BET_ROLLBACK":
            self._reversed.add(params["rollback_of"])
            if params["rollback_of"] not in self._debits:
                return "TRANSACTION_NOT_FOUND"
            self.balance[player] += self._debits.pop(params["rollback_of"])
        return "OK"


@asynccontextmanager
async def receiving(
    receive: Callable[[web.Request], Awaitable[web.StreamResponse]], listening: socket.socket | None = None
) -> AsyncIterator[str]:
    """Serves callbacks on this socket or on a free port; yields the URL."""
    application = web.Application()
    application.router.add_post("/callback", receive)
    # A request whose connection has closed is cancelled, so that it no longer counts as live.
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listening = listening or socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    await web.SockSite(runner, listening).start()
    try:
        yield f"http://{host}:{port}/callback"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running_operator(operator_id: str, public_pem: bytes) -> AsyncIterator[Operator]:
    """Serves the operator on a free port; requests still held at the end are answered."""
    operator = Operator(operator_id, public_pem)
    async with receiving(operator.receive) as operator.url:
        try:
            yield operator
        finally:
            operator.release()
