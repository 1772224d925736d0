"""The Merkle tree's hashes and inclusion proofs (RFC 6962 2.1, RFC 9162 2.1.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
PROOF_HASHES_MAX: Final = 63


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry: 0x00 before its bytes."""
    return sha256(b"\x00" + entry).digest()


def root_of(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root to which this proof leads. Raises ValueError if its length does not fit."""
    if not 0 <= index < size:
        raise ValueError(f"a log of size {size} has no entry {index}")
    found, last = leaf, size - 1
    for sibling in proof:
        if last == 0:
            raise ValueError("the inclusion proof is too long")
        if index % 2 == 1 or index == last:
            found = sha256(b"\x01" + sibling + found).digest()
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            found = sha256(b"\x01" + found + sibling).digest()
        index, last = index // 2, last // 2
    if last:
        raise ValueError("the inclusion proof is too short")
    return found
