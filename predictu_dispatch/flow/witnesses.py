"""Has the logs' checkpoints cosigned by witnesses, one daemon at a time.

A witness that is down costs one timeout in each turn and delays no other witness. Deliveries and
sealing never wait for a witness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, assert_never

from predictu_dispatch.core.merkle.checkpoint import witness_request
from predictu_dispatch.core.merkle.tiles import Tile
from predictu_dispatch.core.witness import (
    Answer,
    Conflict,
    Cosigned,
    Failure,
    Refusal,
    Silence,
    Submission,
    Witness,
    WitnessFigures,
    beyond_our_log,
    judge,
    proof_of,
    tiles_of_proof,
)
from predictu_dispatch.flow.loops import ChoreObserver, run_chore

_INTERVAL_S: Final = 10.0
_TRIALS: Final = 2
"""A conflict names the size to start from. A second one means that another daemon was faster."""


class WitnessStore(Protocol):
    """The database; all methods raise DatabaseUnavailable during an outage."""

    async def claim_turn(self, *, every_s: float) -> bool: ...
    async def submissions(self, witness: str) -> Sequence[Submission]: ...
    async def newest(self, operator_id: str) -> Submission: ...
    async def tiles(self, operator_id: str, tiles: Sequence[Tile]) -> Mapping[Tile, bytes]: ...
    async def cosigned(self, witness: str, sent: Submission, line: str) -> None: ...
    async def failed(self, witness: str, operator_id: str, reason: str, *, is_refused: bool) -> None: ...
    async def figures(self, witnesses: Sequence[str]) -> Sequence[WitnessFigures]: ...


class WitnessClient(Protocol):
    """HTTP; no answer of a witness raises."""

    async def add_checkpoint(self, witness: Witness, body: str) -> Answer | Silence: ...


class WitnessObserver(ChoreObserver, Protocol):
    """Logs and metrics."""

    def cosigned(self, witness: Witness, sent: Submission) -> None: ...
    def witness_refused(self, witness: Witness, sent: Submission, reason: str) -> None: ...
    def witness_failed(self, witness: Witness, sent: Submission, reason: str) -> None: ...
    def witnesses_read(self, figures: Sequence[WitnessFigures]) -> None: ...


class Witnesses:
    """Sends new checkpoints to all witnesses until cancelled."""

    def __init__(
        self,
        witnesses: Sequence[Witness],
        store: WitnessStore,
        client: WitnessClient,
        observer: WitnessObserver,
        *,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._witnesses = witnesses
        self._store = store
        self._client = client
        self._observer = observer
        self._interval_s = interval_s

    async def run(self) -> None:
        while True:
            await run_chore("cosign", self.take_turn(), self._observer)
            await run_chore("read_witnesses", self._read_figures(), self._observer)
            await asyncio.sleep(self._interval_s)

    async def take_turn(self) -> None:
        """Ask all witnesses at once, if no other daemon does in this interval."""
        if not await self._store.claim_turn(every_s=self._interval_s):
            return
        async with asyncio.TaskGroup() as tasks:
            for witness in self._witnesses:
                tasks.create_task(
                    run_chore(f"cosign {witness.name}", self._ask(witness), self._observer),
                    name=f"witness {witness.name}",
                )

    async def _ask(self, witness: Witness) -> None:
        """Send one checkpoint after another until the witness fails or the interval is over."""
        ends_at_s = asyncio.get_running_loop().time() + self._interval_s
        for submission in await self._store.submissions(witness.name):
            if asyncio.get_running_loop().time() >= ends_at_s:
                return
            if (
                witness.knows(submission.operator_id)
                and submission.is_due()
                and not await self._submit(witness, submission)
            ):
                return

    async def _submit(self, witness: Witness, submission: Submission) -> bool:
        """Return False if the witness gave no usable answer."""
        sent, outcome = await self._exchange(witness, submission)
        match outcome:
            case Cosigned(line):
                await self._store.cosigned(witness.name, sent, line)
                self._observer.cosigned(witness, sent)
                return True
            case Refusal(reason):
                await self._store.failed(witness.name, sent.operator_id, reason, is_refused=True)
                self._observer.witness_refused(witness, sent, reason)
                return True
            case Failure(reason):
                await self._store.failed(witness.name, sent.operator_id, reason, is_refused=False)
                self._observer.witness_failed(witness, sent, reason)
                return False
            case _:
                assert_never(outcome)

    async def _exchange(self, witness: Witness, sent: Submission) -> tuple[Submission, Cosigned | Refusal | Failure]:
        """Return what was sent last, and the outcome."""
        old_size = sent.cosigned_size
        for _ in range(_TRIALS):
            tiles = await self._store.tiles(sent.operator_id, tiles_of_proof(old_size, sent.size))
            proof = proof_of(old_size, sent.size, lambda *tile, read=tiles: read.get(Tile(*tile), b""))
            if isinstance(proof, Refusal):
                return sent, proof
            answer = await self._client.add_checkpoint(witness, witness_request(old_size, proof, sent.checkpoint))
            outcome = judge(answer, sent, old_size, witness.key)
            if not isinstance(outcome, Conflict):
                return sent, outcome
            old_size = outcome.size
            if old_size > sent.size:
                # Perhaps another daemon was faster, with a checkpoint that is newer than this one.
                sent = await self._store.newest(sent.operator_id)
                if (refusal := beyond_our_log(outcome, sent.size)) is not None:
                    return sent, refusal
        return sent, Failure(f"it has cosigned another checkpoint meanwhile, of {old_size} entries")

    async def _read_figures(self) -> None:
        known = {witness.name: witness for witness in self._witnesses}
        figures = await self._store.figures(list(known))
        self._observer.witnesses_read([one for one in figures if known[one.witness].knows(one.operator_id)])
