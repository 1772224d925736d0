"""Witnesses of real logs: the sealer, the database and reference operators are real."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from typing_extensions import override

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.witness import Answer, Silence, Submission, Witness, WitnessFigures
from predictu_dispatch.edge.http.witness_client import WitnessClient
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.witness_store import WitnessStore
from predictu_dispatch.flow.witnesses import Witnesses
from tests.support.harness import OPERATOR, Connection
from tests.support.sealing import ORIGIN, SEED, TestSealer, insert_attempts

LOG_VKEY = str(VerifierKey.of_seed(f"{ORIGIN}/{OPERATOR}", SEED))


class Seen:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        """Event, witness and size."""
        self.reasons: list[str] = []
        self.figures: dict[str, WitnessFigures] = {}
        self.failures: list[Exception] = []

    def cosigned(self, witness: Witness, sent: Submission) -> None:
        self.events.append(("cosigned", witness.name, sent.size))

    def witness_refused(self, witness: Witness, sent: Submission, reason: str) -> None:
        self.events.append(("refused", witness.name, sent.size))
        self.reasons.append(reason)

    def witness_failed(self, witness: Witness, sent: Submission, reason: str) -> None:
        self.events.append(("failed", witness.name, sent.size))
        self.reasons.append(reason)

    def witnesses_read(self, figures: Sequence[WitnessFigures]) -> None:
        self.figures = {one.witness: one for one in figures if one.operator_id == OPERATOR}

    def chore_failed(self, _: str, error: Exception) -> None:
        self.failures.append(error)

    def chore_succeeded(self, chore: str) -> None: ...


class CountingClient(WitnessClient):
    """The real client; it notes each request, and calls `before` ahead of it."""

    def __init__(
        self, before: Callable[[], object] = lambda: None, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0
    ) -> None:
        super().__init__(tls, timeout_s=timeout_s)
        self.asked: list[tuple[str, int]] = []
        """Witness and old size."""
        self.before = before

    @override
    async def add_checkpoint(self, witness: Witness, body: str) -> Answer | Silence:
        self.asked.append((witness.name, int(body.split("\n", maxsplit=1)[0].removeprefix("old "))))
        before = self.before()
        if asyncio.iscoroutine(before):
            await before
        return await super().add_checkpoint(witness, body)


class TestWitnesses(Witnesses):
    """Takes its turns when the test says so, and knows its parts."""

    __test__ = False
    client: CountingClient
    observer: Seen

    async def turn(self) -> list[tuple[str, str, int]]:
        """Take a turn as if its interval had passed; returns the events of it, in order of name."""
        self.observer.events.clear()
        self.observer.reasons.clear()
        await self.take_turn()
        await self._read_figures()
        assert self.observer.failures == []
        return sorted(self.observer.events)


@asynccontextmanager
async def open_witnesses(
    dsn: str,
    *witnesses: Witness,
    before: Callable[[], object] = lambda: None,
    timeout_s: float = 10.0,
    is_eager: bool = True,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[TestWitnesses]:
    pool = Pool(dsn, pool_size=3, application_name=f"witnesses {secrets.token_hex(4)}")
    await pool.open()
    client, observer = CountingClient(before, tls=tls, timeout_s=timeout_s), Seen()
    try:
        store = (EagerStore if is_eager else WitnessStore)(pool, instance="host-1")
        opened = TestWitnesses(witnesses, store, client, observer)
        opened.client, opened.observer = client, observer
        yield opened
    finally:
        await client.close()
        await pool.close()


class EagerStore(WitnessStore):
    """Gets every turn."""

    @override
    async def claim_turn(self, *, every_s: float) -> bool:
        return await super().claim_turn(every_s=0.0 * every_s)


async def grow(owner: Connection, sealer: TestSealer, count: int = 3) -> int:
    """Write and seal attempts, store a checkpoint as if a minute had passed; returns its size."""
    await insert_attempts(owner, count)
    await sealer.seal_all()
    await owner.execute(
        "insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)"
        " select operator_id, size, checkpoint from predictu_dispatch.audit_head on conflict do nothing"
    )
    size: int = await owner.fetchval("select size from predictu_dispatch.audit_head where operator_id = $1", OPERATOR)
    return size
