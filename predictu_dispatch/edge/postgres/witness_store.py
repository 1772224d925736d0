"""The witnesses of the logs in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, Tile
from predictu_dispatch.core.witness import Submission, WitnessFigures
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.sql_files import query


class WitnessStore:
    """Checkpoints to send, tiles for their proofs, and the answers of witnesses."""

    def __init__(self, database: Database, *, instance: str) -> None:
        self._database = database
        self._instance = instance

    async def claim_turn(self, *, every_s: float) -> bool:
        """Return whether this daemon asks the witnesses in this interval."""
        ((is_claimed,),) = await self._database.fetch(query("claim_chore"), "cosign", every_s, self._instance)
        return bool(is_claimed)

    async def submissions(self, witness: str) -> list[Submission]:
        """Return what the witness has not cosigned yet, one checkpoint for each log."""
        return [Submission(**row) for row in await self._database.fetch(query("witness_submissions"), witness)]

    async def newest(self, operator_id: str) -> Submission:
        """Return the newest checkpoint of a log that exists."""
        (row,) = await self._database.fetch(query("witness_newest"), operator_id)
        return Submission(operator_id=operator_id, **row)

    async def tiles(self, operator_id: str, tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        """Return these tiles as they were at their widths; a missing one is left out."""
        if not tiles:
            return {}
        rows = await self._database.fetch(
            query("witness_tiles"), operator_id, [tile.level for tile in tiles], [tile.number for tile in tiles]
        )
        hashes = {(row["level"], row["tile"]): row["hashes"] for row in rows}
        return {
            tile: hashes[tile.level, tile.number][: tile.width * HASH_BYTES]
            for tile in tiles
            if (tile.level, tile.number) in hashes
        }

    async def cosigned(self, witness: str, sent: Submission, line: str) -> None:
        await self._database.fetch(query("witness_cosigned"), sent.operator_id, witness, sent.size, line)

    async def failed(self, witness: str, operator_id: str, reason: str, *, is_refused: bool) -> None:
        await self._database.fetch(query("witness_failed"), operator_id, witness, reason, is_refused)

    async def figures(self, witnesses: Sequence[str]) -> list[WitnessFigures]:
        rows = await self._database.fetch(query("witness_figures"), list(witnesses))
        return [WitnessFigures(**row) for row in rows]
