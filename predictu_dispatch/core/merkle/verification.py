"""Verifies inclusion proofs (RFC 9162 section 2.1.3.2)."""

from collections.abc import Sequence
from typing import Final

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, ProofError, check_size
from predictu_dispatch.core.merkle.tree import node_hash

PROOF_HASHES_MAX: Final = 63
"""A tree of 2**63 leaves needs no more (c2sp.org/tlog-witness sets the same limit)."""


def verify_inclusion(index: int, size: int, leaf_hash: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the leaf is at this index of the tree with this root. Raises ProofError."""
    check_size(size)
    if not 0 <= index < size:
        raise ProofError(f"a tree of size {size} has no leaf {index}")
    _check_hashes([leaf_hash, root], proof)
    node, last, computed = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if computed != root:
        raise ProofError("the inclusion proof leads to another root")


def _check_hashes(named: Sequence[bytes], proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX:
        raise ProofError(f"the proof has {len(proof)} hashes, more than {PROOF_HASHES_MAX}")
    if any(len(each) != HASH_BYTES for each in (*named, *proof)):
        raise ProofError(f"a hash does not have {HASH_BYTES} bytes")
