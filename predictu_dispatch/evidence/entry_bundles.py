"""The bundles of entries of a static log (c2sp.org/tlog-tiles), built from the rows as stored.

Postgres sorts the entries by index, so memory is bounded in whatever order the rows are stored. An
entry bundle is whole or left out: entries whose rows retention removed cannot be built.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle.tiles import TILE_WIDTH, ProofError, bundle_of, width_of
from predictu_dispatch.core.merkle.tree import leaf_hash
from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.entry_sql import SOURCES, entry_expression
from predictu_dispatch.evidence.ranges import Ranges

_TILES: Final = 4_096
"""A million entries; each statement reads the months of their attempts."""
_LEAVES: Final = """
with leaf as materialized (
    select t.tile * 256 + n as place, encode(substr(t.report_ids, n * 16 + 1, 16), 'hex')::uuid as entry_id,
           substr(t.hashes, n * 32 + 1, 32) as leaf_hash
      from predictu_dispatch.audit_tile t
     cross join generate_series(0, octet_length(t.report_ids) / 16 - 1) n
     where t.operator_id = $1 and t.level = 0 and t.tile >= $2 and t.tile < $3 and t.tile * 256 + n < $4
), bounds as (
    select min(t.started_from) as begins_at, max(t.started_until) as ends_at from predictu_dispatch.audit_tile t
     where t.operator_id = $1 and t.level = 0 and t.tile >= $2 and t.tile < $3
)
"""
_PART: Final = """
select leaf.place, leaf.leaf_hash, {expression} as entry from {rows} join leaf on leaf.entry_id = {entry_id}
 where {row}.operator_id = $1
"""
_OF_THESE_MONTHS: Final = """
   and {row}.started_at >= (select begins_at from bounds) and {row}.started_at <= (select ends_at from bounds)
"""


class Bundle(NamedTuple):
    """The entries of a tile as a file; `content` is None if an entry has no row that fits.

    `unexplained` counts those whose rows were not removed by retention.
    """

    tile: int
    width: int
    content: bytes | None
    unexplained: int = 0


async def bundles(reader: AuditReader, operator_id: str, first: int, size: int) -> AsyncIterator[Bundle]:
    """Yield the bundles from tile `first` of level 0 on, of the log as it was at this size."""
    removals = await reader.fetch("audit_removals", operator_id)
    removed = Ranges([(begin, end) for row in removals for begin, end in row["leaf_ranges"]])
    last = -(-size // TILE_WIDTH)
    for begin in range(first, last, _TILES):
        end = min(begin + _TILES, last)
        tile = begin
        entries: dict[int, bytes] = {}
        async for batch in reader.rows(_statement(), operator_id, begin, end, size):
            for place, sealed, entry in batch:
                while place // TILE_WIDTH > tile:
                    yield _bundle(tile, size, entries, removed)
                    tile, entries = tile + 1, {}
                # An id may have several rows; one that was changed fits none of its places.
                if leaf_hash(entry) == sealed:
                    entries[place] = entry
        while tile < end:
            yield _bundle(tile, size, entries, removed)
            tile, entries = tile + 1, {}


def _bundle(tile: int, size: int, entries: dict[int, bytes], removed: Ranges) -> Bundle:
    width = width_of(0, tile, size)
    begin = tile * TILE_WIDTH
    if len(entries) < width:
        missing = [place for place in range(begin, begin + width) if place not in entries]
        return Bundle(tile, width, None, sum(place not in removed for place in missing))
    try:
        return Bundle(tile, width, bundle_of([entries[place] for place in range(begin, begin + width)]))
    except ProofError:
        # An entry that is too long for a bundle; its hash is in the tile.
        return Bundle(tile, width, None)


@cache
def _statement() -> str:
    """$1 operator, $2 and $3 the first tile and the one behind the last, $4 the log's size."""
    parts = []
    for source in SOURCES:
        row, expression = entry_expression(source.function)
        part = _PART + _OF_THESE_MONTHS if source.is_partitioned else _PART
        of_source = {"rows": source.rows.format(row), "entry_id": source.entry_id.format(row)}
        parts.append(part.format(row=row, expression=expression, **of_source))
    return f"{_LEAVES} {' union all '.join(parts)} order by 1"
