"""Compares the removals that retention recorded with the rows that it removed."""

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from uuid import UUID

from predictu_dispatch.core.merkle.tree import inclusion_proof
from predictu_dispatch.core.merkle.verification import verify_inclusion
from tests.support.harness import Connection

_ROWS = (
    "select operator_id, report_id, written_in, verdict,"
    " sha256(decode('00', 'hex') || predictu_dispatch.audit_entry(a)) as leaf"
    " from predictu_dispatch.attempt a"
)

Leaf = tuple[str, int]
"""An operator and an index in its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRows:
    """The indices of all rows that are in a log, and their leaf hashes."""

    leaves: dict[Leaf, bytes]

    def of(self, rows: "SealedRows") -> set[Leaf]:
        """The indices that `rows` no longer has."""
        return {*self.leaves} - {*rows.leaves}


async def tile_hashes(owner: Connection, operator_id: str) -> dict[tuple[int, int], bytes]:
    rows = await owner.fetch("select * from predictu_dispatch.audit_tile where operator_id = $1", operator_id)
    return {(row["level"], row["tile"]): row["hashes"] for row in rows}


async def sealed_rows(owner: Connection) -> SealedRows:
    """Finds each row of attempts by its entry's hash, without any function of retention."""
    by_leaf: dict[tuple[str, bytes], int] = {}
    for row in await owner.fetch("select * from predictu_dispatch.audit_tile where level = 0"):
        for place in range(len(row["hashes"]) // 32):
            leaf = row["hashes"][place * 32 : place * 32 + 32]
            by_leaf[row["operator_id"], leaf] = row["tile"] * 256 + place
    found = {}
    for row in await owner.fetch(_ROWS):
        key = row["operator_id"], row["leaf"]
        if key in by_leaf:
            found[row["operator_id"], by_leaf[key]] = row["leaf"]
    return SealedRows(leaves=found)


async def recorded(owner: Connection) -> set[Leaf]:
    """The indices in all removals; each is listed once, counted and hashed."""
    places: list[Leaf] = []
    for row in await owner.fetch(
        "select operator_id, attempts, leaf_indices_sha256,"
        " (select array_agg(lower(r) order by lower(r)) from unnest(leaf_indices) r) as first,"
        " (select array_agg(upper(r) order by lower(r)) from unnest(leaf_indices) r) as past"
        " from predictu_dispatch.audit_removal"
    ):
        ranges = list(zip(row["first"], row["past"], strict=True))
        assert all(past < first for (_, past), (first, _) in pairwise(ranges)), "merged"
        text = ",".join(f"{first}-{past - 1}" for first, past in ranges)
        assert row["leaf_indices_sha256"] == sha256(text.encode()).digest()
        own = [(row["operator_id"], place) for first, past in ranges for place in range(first, past)]
        assert row["attempts"] == len(own) > 0
        places += own
    assert len(places) == len({*places}), "no place is removed twice"
    return {*places}


async def assert_provable(owner: Connection, leaves: dict[Leaf, bytes]) -> None:
    """Every one of these leaves still is in its log."""
    heads = {row["operator_id"]: row for row in await owner.fetch("select * from predictu_dispatch.audit_head")}
    tiles = {operator_id: await tile_hashes(owner, operator_id) for operator_id in heads}
    for (operator_id, place), leaf in leaves.items():
        head = heads[operator_id]

        def read(level: int, number: int, width: int, operator_id: str = operator_id) -> bytes:
            return tiles[operator_id][level, number][: width * 32]

        verify_inclusion(place, head["size"], leaf, head["root"], inclusion_proof(place, head["size"], read))


async def entry_ids(owner: Connection) -> set[UUID]:
    """The ids of all entries of all logs."""
    ids: set[UUID] = set()
    for row in await owner.fetch("select report_ids from predictu_dispatch.audit_tile where level = 0"):
        ids |= {UUID(bytes=row["report_ids"][at : at + 16]) for at in range(0, len(row["report_ids"]), 16)}
    return ids
