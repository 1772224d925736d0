"""Roots, proofs and tiles are those of RFC 6962, and no altered proof verifies."""

import ast
import random
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import predictu_dispatch.core.merkle
from predictu_dispatch.core.merkle.tiles import ProofError, Tile, required_tiles, tiles_of
from predictu_dispatch.core.merkle.tree import (
    EMPTY_ROOT,
    append,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    root_of_edge,
)
from predictu_dispatch.core.merkle.verification import verify_inclusion
from predictu_dispatch.reference_operator.checkpoint import has_grown
from tests.core.merkle import naive
from tests.core.merkle.naive import LEAVES, SIZE, tiles, tree_hash

EVERY_SIZE_TO = 600
# The entries and roots of the tests of Certificate Transparency's first implementation.
KNOWN_ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@st.composite
def size_and_index(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, SIZE))
    return size, draw(st.integers(0, size - 1))


@st.composite
def two_sizes(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(0, SIZE))
    return draw(st.integers(0, size)), size


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    leaves = b"".join(leaf_hash(bytes.fromhex(entry)) for entry in KNOWN_ENTRIES[:size])
    assert append(0, {}, leaves).root.hex() == KNOWN_ROOTS[size]


def test_every_small_tree_is_as_defined() -> None:
    for size in range(EVERY_SIZE_TO + 1):
        grown = append(0, {}, b"".join(LEAVES[:size]))
        assert grown.root == root(size, tiles) == root_of_edge(size, grown.right_edge) == tree_hash(0, size), size


def test_every_proof_in_a_small_tree_is_as_defined_and_verifies() -> None:
    for size in range(EVERY_SIZE_TO + 1):
        # All of them would take a minute. Above 40, each size has others.
        first, step = (size % 13, 13) if size > 40 else (0, 1)
        for index in range(first, size, step):
            proof = inclusion_proof(index, size, tiles)
            assert proof == naive.path(index, 0, size), (index, size)
            verify_inclusion(index, size, LEAVES[index], tree_hash(0, size), proof)
        for old in range(first, size + 1, step):
            proof = consistency_proof(old, size, tiles)
            assert proof == (naive.subproof(old, 0, size, known=True) if old else []), (old, size)
            assert old in {0, size} or has_grown(old, tree_hash(0, old), size, tree_hash(0, size), proof), (old, size)


@given(size_and_index())
def test_any_inclusion_proof_is_as_defined_and_verifies(case: tuple[int, int]) -> None:
    size, index = case
    proof = inclusion_proof(index, size, tiles)
    assert proof == naive.path(index, 0, size)
    assert root(size, tiles) == tree_hash(0, size)
    verify_inclusion(index, size, LEAVES[index], tree_hash(0, size), proof)


@given(two_sizes())
def test_any_consistency_proof_is_as_defined_and_verifies(case: tuple[int, int]) -> None:
    old, size = case
    proof = consistency_proof(old, size, tiles)
    assert proof == (naive.subproof(old, 0, size, known=True) if old else [])
    assert old in {0, size} or has_grown(old, tree_hash(0, old), size, tree_hash(0, size), proof)


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 700), st.sampled_from([255, 256, 257, 512]))), st.data())
def test_portions_make_the_same_tree_as_one_append(portions: list[int], data: st.DataObject) -> None:
    begin = data.draw(st.sampled_from([0, 0, 1, 255, 256, 65_279, 65_280, 65_535, 65_536]))
    size, edge = begin, append(0, {}, b"".join(LEAVES[:begin])).right_edge
    stored = {}
    for count in portions:
        count = min(count, SIZE - size)  # noqa: PLW2901 - the log ends there
        grown = append(size, edge, b"".join(LEAVES[size : size + count]))
        assert [Tile(level, number, len(hashes) // 32) for level, number, hashes in grown.tiles] == list(
            tiles_of(size + count, since=size)
        )
        stored.update({(level, number): hashes for level, number, hashes in grown.tiles})
        size, edge = grown.size, grown.right_edge
        assert grown.root == tree_hash(0, size)
    at_once = append(0, {}, b"".join(LEAVES[:size]))
    assert (size, edge) == (at_once.size, at_once.right_edge)
    since = {(tile.level, tile.number) for tile in tiles_of(size, since=begin)}
    assert stored == {(level, number): hashes for level, number, hashes in at_once.tiles if (level, number) in since}


def altered(hashes: list[bytes], rng: random.Random) -> list[bytes]:
    """Return the list with one bit flipped, or with a hash more, fewer or elsewhere."""
    changed = list(hashes)
    match rng.randrange(5):
        case 0:
            place = rng.randrange(len(hashes))
            changed[place] = flipped(hashes[place], rng)
        case 1:
            del changed[rng.randrange(len(hashes))]
        case 2:
            changed.insert(rng.randrange(len(hashes) + 1), rng.choice(hashes))
        case 3:
            changed.insert(rng.randrange(len(hashes) + 1), rng.randbytes(32))
        case _:
            rng.shuffle(changed)
    return changed


def flipped(value: bytes, rng: random.Random) -> bytes:
    return (int.from_bytes(value, "big") ^ 1 << rng.randrange(len(value) * 8)).to_bytes(len(value), "big")


@given(size_and_index(), st.randoms(use_true_random=False))
def test_no_altered_inclusion_proof_verifies(case: tuple[int, int], rng: random.Random) -> None:
    size, index = case
    proof, leaf, its_root = inclusion_proof(index, size, tiles), LEAVES[index], tree_hash(0, size)
    for wrong in {rng.randrange(size), index ^ 1, index + 1, index - 1, size, -1} - {index}:
        with pytest.raises(ProofError):
            verify_inclusion(wrong, size, leaf, its_root, proof)
    with pytest.raises(ProofError, match="leads to another root"):
        verify_inclusion(index, size, flipped(leaf, rng), its_root, proof)
    with pytest.raises(ProofError, match="leads to another root"):
        verify_inclusion(index, size, leaf, flipped(its_root, rng), proof)
    for _ in range(5 if proof else 0):
        changed = altered(proof, rng)
        if changed != proof:
            with pytest.raises(ProofError):
                verify_inclusion(index, size, leaf, its_root, changed)
    # A size alone does not decide: trees of several sizes have paths of one shape. Together with
    # the root of that size it does, and a checkpoint signs both.
    for other in {rng.randint(1, SIZE), size - 1, size + 1} & set(range(index + 1, SIZE + 1)):
        if inclusion_proof(index, other, tiles) != proof:
            with pytest.raises(ProofError):
                verify_inclusion(index, other, leaf, tree_hash(0, other), proof)


@given(two_sizes(), st.randoms(use_true_random=False))
def test_no_altered_consistency_proof_verifies(case: tuple[int, int], rng: random.Random) -> None:
    old, size = case
    assume(0 < old < size)
    proof, old_root, its_root = consistency_proof(old, size, tiles), tree_hash(0, old), tree_hash(0, size)
    for changed in (flipped(old_root, rng), its_root, EMPTY_ROOT):
        assert not has_grown(old, changed, size, its_root, proof)
    assert not has_grown(old, old_root, size, flipped(its_root, rng), proof)
    assert not has_grown(old, old_root, size, its_root, [*proof, rng.randbytes(32)])
    for _ in range(5):
        if (changed_proof := altered(proof, rng)) != proof:
            assert not has_grown(old, old_root, size, its_root, changed_proof)
    for other in {rng.randint(1, size), old - 1, old + 1} & set(range(1, size)) - {old}:
        if consistency_proof(other, size, tiles) != proof:
            assert not has_grown(other, tree_hash(0, other), size, its_root, proof)


def test_a_proof_of_another_length_is_refused_even_if_its_hashes_lead_to_the_root() -> None:
    # Nobody but the log itself can sign such roots.
    extra = LEAVES[9]
    three, four = tree_hash(0, 3), tree_hash(0, 4)
    with pytest.raises(ProofError, match="too long"):
        verify_inclusion(0, 1, LEAVES[0], node_hash(extra, LEAVES[0]), [extra])
    with pytest.raises(ProofError, match="too short"):
        verify_inclusion(0, 2, LEAVES[0], LEAVES[0], [])
    grown = consistency_proof(3, 4, tiles)
    assert has_grown(3, three, 4, four, grown)
    assert not has_grown(3, node_hash(extra, three), 4, node_hash(extra, four), [*grown, extra])
    assert not has_grown(1, LEAVES[0], 4, tree_hash(0, 2), [LEAVES[1]])


def test_hashes_of_another_length_are_refused() -> None:
    proof = inclusion_proof(3, 10, tiles)
    leaf, its_root = LEAVES[3], tree_hash(0, 10)
    for arguments in ((leaf[:-1], its_root, proof), (leaf, its_root + b"\0", proof), (leaf, its_root, [b"", *proof])):
        with pytest.raises(ProofError, match="does not have 32 bytes"):
            verify_inclusion(3, 10, *arguments)
    with pytest.raises(ProofError, match="64 hashes, more than 63"):
        verify_inclusion(3, 10, leaf, its_root, [leaf] * 64)


def test_sizes_and_indices_out_of_range_are_refused() -> None:
    for index, size in ((-1, 5), (5, 5), (0, 0), (0, -1), (0, 2**63)):
        with pytest.raises(ProofError, match=r"has no leaf|no tree has the size"):
            inclusion_proof(index, size, tiles)
    for old, size in ((-1, 5), (6, 5), (0, 2**63)):
        with pytest.raises(ProofError, match=r"never had the size|no tree has the size"):
            consistency_proof(old, size, tiles)
    with pytest.raises(ProofError, match="no tree has the size"):
        root(-1, tiles)
    with pytest.raises(ProofError, match="no tree has the size"):
        append(2**63 - 1, {level: bytes(32 * 255) for level in range(7)} | {7: bytes(32 * 127)}, bytes(32))


def test_a_right_edge_of_another_size_is_refused() -> None:
    edge = dict(append(0, {}, b"".join(LEAVES[:300])).right_edge)
    assert append(300, edge, LEAVES[300]).root == tree_hash(0, 301)
    for size, wrong in (
        (299, edge),
        (556, edge),
        (300, {}),
        (300, edge | {2: bytes(32)}),
        (300, edge | {0: bytes(44)}),
    ):
        with pytest.raises(ProofError, match="the last tile of level"):
            append(size, wrong, LEAVES[300])
    with pytest.raises(ProofError, match="no whole number of hashes"):
        append(300, edge, bytes(33))


def test_a_tile_of_another_length_is_refused() -> None:
    for change in (-1, 1, 32):
        with pytest.raises(ProofError, match=r"tile 0/3 has \d+ bytes, not 8192"):
            inclusion_proof(800, 1500, lambda *tile, change=change: bytes(32 * tile[2] + change))


@given(two_sizes())
def test_the_required_tiles_are_those_that_are_read(case: tuple[int, int]) -> None:
    old, size = case
    required = required_tiles(lambda read: (root(size, read), consistency_proof(old, size, read)))
    assert set(required) <= set(tiles_of(size))
    loaded = {tile: tiles(*tile) for tile in required}
    assert consistency_proof(old, size, lambda *tile: loaded[Tile(*tile)]) == consistency_proof(old, size, tiles)
    assert root(size, lambda *tile: loaded[Tile(*tile)]) == tree_hash(0, size)
    # Two tiles of each level may be needed.
    assert len(required) <= 6


def test_leaves_and_nodes_are_hashed_differently() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right) == tree_hash(0, 2)


def test_the_package_imports_nothing_of_ours_but_itself_and_pynacl() -> None:
    allowed = {
        *("base64", "binascii", "collections.abc", "contextlib", "dataclasses", "enum", "hashlib", "re", "typing"),
        *("__future__", "nacl.bindings", "nacl.exceptions", "typing_extensions"),
    }
    folder = Path(predictu_dispatch.core.merkle.__path__[0])
    modules = [ast.parse(path.read_text("utf-8")) for path in folder.glob("*.py")]
    imports = [node for module in modules for node in ast.walk(module) if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {name for node in imports for name in names_of(node)}
    assert {name for name in named if not name.startswith("predictu_dispatch.core.merkle")} <= allowed


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
