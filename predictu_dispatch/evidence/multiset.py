"""Compares rows with the log's entries in any order, in constant memory.

Each row, as its entry's id and leaf hash, is hashed with a random key of this run and added to one
of 65,536 sums; each leaf of the log is subtracted from its sum. A sum that is not zero has at least
one row or leaf too many, and the entries of those sums are then read again and compared one by one
(see differences.py). A sum is zero by accident, or by intent without the key, with a probability of
about 2**-128.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

ID_BYTES: Final = 16
SUMS: Final = 1 << 16
_DIGEST_BYTES: Final = 16
_MODULUS_MASK: Final = (1 << 8 * _DIGEST_BYTES) - 1


def sum_of(entry_id: bytes) -> int:
    """Which sum an entry belongs to. The same expression is in the SQL of entry_sql.py."""
    return entry_id[14] << 8 | entry_id[15]


class Multisets:
    """The sums of all operators' rows and leaves. The key is 16 to 64 random bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._keys: dict[str, bytes] = {}
        self._sums = [0] * SUMS
        self.rows = 0
        self.leaves = 0

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> list[tuple[str, Any]]:
        """Add rows, each its operator, its record and something else.

        Rows without a record are pending: their operators and the other thing are returned.
        """
        sums, keys, new = self._sums, self._keys, blake2b
        pending = []
        for operator_id, record, other in rows:
            if record is None:
                pending.append((operator_id, other))
                continue
            self.rows += 1
            key = keys.get(operator_id) or self._key_of(operator_id)
            digest = new(record, key=key, digest_size=_DIGEST_BYTES).digest()
            sums[record[14] << 8 | record[15]] += int.from_bytes(digest)
        return pending

    def subtract_leaves(self, operator_id: str, ids: bytes, hashes: bytes) -> None:
        """Subtract leaves, given as their concatenated ids and hashes."""
        sums, new = self._sums, blake2b
        key = self._keys.get(operator_id) or self._key_of(operator_id)
        count = len(ids) // ID_BYTES
        for number in range(count):
            record = ids[number * 16 : number * 16 + 16] + hashes[number * 32 : number * 32 + 32]
            digest = new(record, key=key, digest_size=_DIGEST_BYTES).digest()
            sums[record[14] << 8 | record[15]] -= int.from_bytes(digest)
        self.leaves += count

    def unbalanced(self) -> list[int]:
        """The sums that are not zero."""
        return [number for number, value in enumerate(self._sums) if value & _MODULUS_MASK]

    def _key_of(self, operator_id: str) -> bytes:
        """A key for each operator, so that a row moved to another one changes both."""
        key = self._keys[operator_id] = blake2b(operator_id.encode(), key=self._key).digest()
        return key
