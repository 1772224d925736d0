"""Go's golang.org/x/mod/sumdb accepts what we sign and prove, and refuses what is altered."""

import base64
import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictu_dispatch.core.merkle.checkpoint import Checkpoint
from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey, assemble, cosign, sign
from predictu_dispatch.core.merkle.tiles import bundle_of, bundle_path, tile_path, tiles_of
from predictu_dispatch.core.merkle.tree import consistency_proof, inclusion_proof
from tests.core.merkle.naive import ENTRIES, LEAVES, SIZE, tiles, tree_hash
from tests.support.foreign_mutants import altered_signature, flipped
from tests.support.foreign_verifier import (
    ACCEPTED,
    Claim,
    checkpoint,
    consistency,
    entry_inclusion,
    foreign_verifier,
    inclusion,
    tree,
)

ORIGIN = "audit.example/op_a"
LOG_SEED, WITNESS_SEED = bytes(range(32)), bytes(range(32, 64))
LOG = str(VerifierKey.of_seed(ORIGIN, LOG_SEED))
WITNESS = str(VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, Algorithm.COSIGNATURE_V1))
SIZES = [1, 2, 3, 7, 8, 255, 256, 257, 511, 600, 65_535, 65_536, 65_537, SIZE]
SOURCE = Path(__file__).parents[2] / "foreign_verifier"


def signed(size: int, *, seed: bytes = LOG_SEED) -> str:
    text = Checkpoint(ORIGIN, size, tree_hash(0, size)).text()
    return assemble(text, [sign(text, ORIGIN, seed), cosign(text, "witness.example/w1", WITNESS_SEED, 1_700_000_000)])


def included(index: int, size: int) -> Claim:
    return inclusion(signed(size), LOG, index, LEAVES[index], inclusion_proof(index, size, tiles))


def consistent(old: int, size: int) -> Claim:
    return consistency(signed(old), signed(size), LOG, consistency_proof(old, size, tiles))


def test_it_accepts_what_we_make() -> None:
    rng = random.Random(1)
    claims = [checkpoint(signed(size), LOG, witnesses=[WITNESS]) for size in [0, *SIZES]]
    claims += [consistent(old, size) for old, size in itertools.combinations_with_replacement(SIZES, 2)]
    claims += [included(index, size) for size in SIZES for index in {0, size // 2, size - 1}]
    claims += [
        entry_inclusion(signed(600), LOG, index, ENTRIES[index], inclusion_proof(index, 600, tiles))
        for index in range(0, 600, 9)
    ]
    claims += [included(rng.randrange(size), size) for size in (rng.randint(1, SIZE) for _ in range(200))]
    claims += [consistent(*sorted((rng.randint(1, SIZE), rng.randint(1, SIZE)))) for _ in range(200)]
    verdicts = foreign_verifier().verdicts(claims)
    assert [(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True) if verdict != ACCEPTED] == []


def test_it_refuses_two_hundred_mutants() -> None:
    mutants = list(itertools.islice(mutants_of(random.Random(2)), 200))
    verdicts = foreign_verifier().verdicts(claim for _, claim in mutants)
    assert [name for (name, _), verdict in zip(mutants, verdicts, strict=True) if verdict == ACCEPTED] == []
    # Each kind of mutant was refused for its own reason, not because the program takes nothing.
    assert {verdict.split('"')[1].split(" for key")[0] for verdict in verdicts} >= {
        "invalid signature",
        "invalid transparency proof",
        "malformed note",
        "note has no verifiable signatures",
        "tlog: invalid inputs in CheckRecord",
        "tlog: invalid inputs in CheckTree",
    }


def mutants_of(rng: random.Random) -> Iterator[tuple[str, Claim]]:
    """Yield altered claims, each with what was altered, without end."""
    while True:
        size = rng.randint(3, SIZE)
        old, index = rng.randint(2, size - 1), rng.randrange(size)
        note, good, grown = signed(size), included(index, size), consistent(old, size)
        yield "size", {**good, "note": note.replace(f"\n{size}\n", f"\n{size + 1}\n")}
        yield "root", {**good, "note": signed(size + 1 if size < SIZE else 1).split("—")[0] + note.partition("\n\n")[2]}
        yield "index", {**good, "index": rng.choice([index ^ 1, index + 1, index - 1, size, -1, 2**40])}
        yield "leaf", {**good, "leaf_hash": flipped(good["leaf_hash"], rng)}
        yield "entry", entry_inclusion(note, LOG, index, ENTRIES[index] + b"0", inclusion_proof(index, size, tiles))
        yield "another log's key", {**good, "vkey": str(VerifierKey.of_seed("audit.example/op_b", LOG_SEED))}
        yield "another key", {**good, "note": signed(size, seed=WITNESS_SEED)}
        yield "signature", checkpoint(altered_signature(note, rng, line=-2), LOG)
        yield "cosignature", checkpoint(altered_signature(note, rng), LOG, witnesses=[WITNESS])
        yield "no cosignature", checkpoint(note[: note.rindex("— ")], LOG, witnesses=[WITNESS])
        yield "cut off", checkpoint(note[: rng.randrange(note.index("— "))], LOG)
        yield "backwards", consistency(note, signed(old), LOG, consistency_proof(old, size, tiles))
        for name, claim in (("inclusion", good), ("consistency", grown)):
            if proof := claim["proof"]:
                place = rng.randrange(len(proof))
                changed = [*proof[:place], flipped(proof[place], rng), *proof[place + 1 :]]
                yield f"{name}: hash", {**claim, "proof": changed}
                yield f"{name}: one fewer", {**claim, "proof": proof[:place] + proof[place + 1 :]}
                yield f"{name}: one more", {**claim, "proof": [*proof[:place], proof[place], *proof[place:]]}
                yield f"{name}: one at the end", {**claim, "proof": [*proof, base64.b64encode(bytes(32)).decode()]}


def written_tree(folder: Path, size: int) -> Path:
    """Write a static log (c2sp.org/tlog-tiles) of the first entries."""
    files = {"checkpoint": signed(size).encode()}
    for level, number, width in tiles_of(size):
        files[tile_path(level, number, width)] = tiles(level, number, width)
        if level == 0:
            files[bundle_path(number, width)] = bundle_of(ENTRIES[number * 256 : number * 256 + width])
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.mark.parametrize("size", [1, 256, 700, SIZE])
def test_it_accepts_a_static_tree(tmp_path: Path, size: int) -> None:
    assert foreign_verifier().verdicts([tree(written_tree(tmp_path, size), LOG, witnesses=[WITNESS])]) == [ACCEPTED]


def test_it_refuses_a_static_tree_with_any_file_altered_or_missing(tmp_path: Path) -> None:
    verifier, rng = foreign_verifier(), random.Random(3)
    original = written_tree(tmp_path / "tree", 700)
    assert verifier.accepts(tree(original, LOG, witnesses=[WITNESS]))
    paths = [path.relative_to(original) for path in sorted(original.rglob("*")) if path.is_file()]
    assert len(paths) == 1 + 3 + 3 + 1
    claims: list[Claim] = []
    for number, path in enumerate(paths):
        content = (original / path).read_bytes()
        place = rng.randrange(len(content)) if path.name != "checkpoint" else content.index(b"\n") + 1
        altered = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        for change in (altered, content[:-1], content + b"\0", None):
            changed = shutil.copytree(original, tmp_path / f"{number}-{len(claims)}")
            (changed / path).unlink()
            if change is not None:
                (changed / path).write_bytes(change)
            claims.append(tree(changed, LOG, witnesses=[WITNESS]))
    verdicts = verifier.verdicts(claims)
    assert [(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True) if verdict == ACCEPTED] == []


def test_the_program_is_formatted() -> None:
    foreign_verifier()
    gofmt = shutil.which("gofmt")
    assert gofmt is not None
    assert subprocess.run([gofmt, "-d", SOURCE], capture_output=True, text=True, check=True).stdout == ""
