"""Checks inclusion and consistency proofs (RFC 9162 sections 2.1.3.2 and 2.1.4.2).

Each function returns nothing if the proof holds and raises ProofError otherwise.
"""

from collections.abc import Sequence
from typing import Final

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, ProofError, check_size
from predictu_dispatch.core.merkle.tree import EMPTY_ROOT, node_hash

PROOF_HASHES_MAX: Final = 63
"""A tree of 2**63 leaves needs no more (c2sp.org/tlog-witness sets the same limit)."""


def verify_inclusion(index: int, size: int, leaf_hash: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the leaf is at this index of the tree with this root."""
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


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree with `root` begins with the leaves of the one with `old_root`."""
    check_size(size)
    if not 0 <= old_size <= size:
        raise ProofError(f"a tree of size {size} never had the size {old_size}")
    _check_hashes([old_root, root], proof)
    for known_size, known_root in ((old_size, old_root), (size, root)):
        if known_size == 0 and known_root != EMPTY_ROOT:
            raise ProofError("the root of a tree of size 0 is not the hash of nothing")
    if old_size in (0, size):
        if proof:
            raise ProofError("the consistency proof must be empty for these sizes")
        if old_size == size and old_root != root:
            raise ProofError("two roots for one size")
        return
    _verify_growth(old_size, size, old_root, root, proof)


def _verify_growth(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check a proof between two trees of different size, neither of them empty."""
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # The old tree is itself a node of the new one if its size is a power of two.
    hashes = [old_root, *proof] if node == 0 else list(proof)
    if not hashes:
        raise ProofError("the consistency proof is too short")
    old_computed = computed = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            old_computed, computed = node_hash(sibling, old_computed), node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old_computed != old_root:
        raise ProofError("the consistency proof leads to another old root")
    if computed != root:
        raise ProofError("the consistency proof leads to another root")


def _check_hashes(named: Sequence[bytes], proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX:
        raise ProofError(f"the proof has {len(proof)} hashes, more than {PROOF_HASHES_MAX}")
    if any(len(each) != HASH_BYTES for each in (*named, *proof)):
        raise ProofError(f"a hash does not have {HASH_BYTES} bytes")
