"""Claims about all logs of a database, for the foreign verifier: see foreign_verifier.py."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from predictu_dispatch.core.merkle.tree import consistency_proof, inclusion_proof
from tests.support.foreign_verifier import ACCEPTED, Claim, checkpoint, consistency, entry_inclusion, foreign_verifier
from tests.support.harness import Connection
from tests.support.sealing import ENTRIES

_ENTRIES = f"select id, entry from ({ENTRIES}) e where operator_id = $1 and id = any($2::uuid[])"  # noqa: S608 - our own


@dataclass(kw_only=True)
class ForeignClaims:
    """What our logs say. `checkpoints` may be given more notes than the database keeps."""

    vkey_of: Callable[[str], str]
    """Returns the key of the log with this origin."""
    rng: random.Random
    inclusions: int = 200
    """Random entries of each log that are proved, as they are built from their rows."""
    checkpoints: dict[str, dict[int, str]] = field(default_factory=dict)
    """For each operator all checkpoints that were ever signed, by size."""

    async def keep_checkpoints(self, owner: Connection) -> None:
        """Keep the current heads and stored checkpoints, because few checkpoints are stored."""
        rows = await owner.fetch(
            "select operator_id, size, checkpoint from predictu_dispatch.audit_head"
            " union select operator_id, size, checkpoint from predictu_dispatch.audit_checkpoint"
        )
        for row in rows:
            self.checkpoints.setdefault(row["operator_id"], {})[row["size"]] = row["checkpoint"]

    async def read(self, owner: Connection) -> list[Claim]:
        """All claims: every checkpoint, each as part of the next, and entries of each log."""
        await self.keep_checkpoints(owner)
        claims = []
        for log in await owner.fetch("select operator_id, origin from predictu_dispatch.audit_log"):
            claims += await self._read_log(owner, log["operator_id"], self.vkey_of(log["origin"]))
        return claims

    async def _read_log(self, owner: Connection, operator_id: str, vkey: str) -> list[Claim]:
        tiles = await owner.fetch(
            "select level, tile, hashes, report_ids from predictu_dispatch.audit_tile"
            " where operator_id = $1 order by level, tile",
            operator_id,
        )
        stored = {(row["level"], row["tile"]): row["hashes"] for row in tiles}

        def read(level: int, number: int, width: int) -> bytes:
            hashes: bytes = stored[level, number]
            return hashes[: 32 * width]

        notes = sorted(self.checkpoints[operator_id].items())
        claims = [checkpoint(note, vkey) for _, note in notes]
        for (old_size, old), (size, note) in pairwise(notes):
            claims.append(consistency(old, note, vkey, consistency_proof(old_size, size, read)))
        ids = b"".join(row["report_ids"] for row in tiles if row["level"] == 0)
        places = {ids[begin : begin + 16]: begin // 16 for begin in range(0, len(ids), 16)}
        size, note = notes[-1]
        chosen = self.rng.sample(list(places), min(self.inclusions, len(places)))
        for entry_id, entry in await self._entries(owner, operator_id, chosen):
            index = places[entry_id]
            claims.append(entry_inclusion(note, vkey, index, entry, inclusion_proof(index, size, read)))
        return claims

    @staticmethod
    async def _entries(owner: Connection, operator_id: str, ids: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        rows = await owner.fetch(_ENTRIES, operator_id, [each.hex() for each in ids])
        return [(row["id"].bytes, row["entry"]) for row in rows]


def refused(claims: Sequence[Claim]) -> list[tuple[Claim, str]]:
    """Return the claims that the foreign verifier refuses, with its reasons."""
    verdicts = foreign_verifier().verdicts(claims)
    return [(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True) if verdict != ACCEPTED]
