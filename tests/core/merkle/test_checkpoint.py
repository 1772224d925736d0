"""Checkpoints and proof files: strict to read, bound to the log that signed them."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.merkle.checkpoint import Checkpoint, LogProof, open_checkpoint, witness_request
from predictu_dispatch.core.merkle.note import Algorithm, NoteError, VerifierKey, assemble, cosign, sign, to_base64
from predictu_dispatch.core.merkle.tiles import ProofError
from predictu_dispatch.core.merkle.tree import consistency_proof, inclusion_proof
from tests.core.merkle.naive import LEAVES, SIZE, tiles, tree_hash

ORIGIN = "audit.example/op_a"
LOG_SEED, WITNESS_SEED = bytes(range(32)), bytes(range(32, 64))
LOG = VerifierKey.of_seed(ORIGIN, LOG_SEED)
WITNESS = VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, Algorithm.COSIGNATURE_V1)
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
SPECIFIED = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"
lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


def signed(size: int, *, origin: str = ORIGIN, name: str = ORIGIN, seed: bytes = LOG_SEED) -> str:
    text = Checkpoint(origin, size, tree_hash(0, size)).text()
    return assemble(text, [sign(text, name, seed), cosign(text, WITNESS.name, WITNESS_SEED, 1_700_000_000)])


def proof_file(index: int, size: int, extra: bytes = b"") -> LogProof:
    return LogProof(index=index, proof=tuple(inclusion_proof(index, size, tiles)), note=signed(size), extra=extra)


def test_the_specified_checkpoint_is_read() -> None:
    checkpoint = Checkpoint.parse(SPECIFIED)
    assert (checkpoint.origin, checkpoint.size, to_base64(checkpoint.root)) == (
        "example.com/behind-the-sofa",
        20_852_163,
        ROOT,
    )
    assert checkpoint.text() == SPECIFIED


@given(lines, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_a_checkpoint_round_trips(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends in a newline"),
        (SPECIFIED[:-1], "ends in a newline"),
        (SPECIFIED + "\n", "none is empty"),
        ("\n" + SPECIFIED, "none is empty"),
        (SPECIFIED.replace("\n2", "\n\n2"), "none is empty"),
        (f"origin\n1{ROOT}\n", "three lines"),
        *(
            (SPECIFIED.replace("20852163", size), "leading zeros")
            for size in ("02", "+2", "-2", "2 ", "٢", "0x2", "2.0")
        ),
        (SPECIFIED.replace("20852163", str(2**63)), "leading zeros"),
        (SPECIFIED.replace("20852163", "9" * 5_000), "leading zeros"),
        (SPECIFIED.replace("q2I=", "q2J="), "canonical"),
        (SPECIFIED.replace("q2I=", "q2I"), "canonical"),
        (SPECIFIED.replace("q2I=", "qw=="), "32 bytes"),
        (SPECIFIED.replace(ROOT, to_base64(bytes(33))), "32 bytes"),
        (SPECIFIED.replace("\n", "\r\n"), "control"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        Checkpoint.parse(text)


def test_a_checkpoint_that_would_be_read_differently_is_not_written() -> None:
    for origin, extensions in (("a\n7", ()), ("", ()), ("a", ("",)), ("a", ("b\nc",)), ("a\tb", ())):
        with pytest.raises(NoteError):
            Checkpoint(origin, 0, bytes(32), extensions).text()


def test_a_checkpoint_opens_with_its_log_s_key_and_shows_its_cosignatures() -> None:
    opened = open_checkpoint(signed(300), [LOG], [WITNESS])
    assert opened.checkpoint == Checkpoint(ORIGIN, 300, tree_hash(0, 300))
    assert (opened.log_keys, opened.cosignatures) == ((LOG,), ((WITNESS, 1_700_000_000),))
    assert open_checkpoint(signed(300), [LOG]).cosignatures == ()


def test_a_rotated_key_signs_beside_the_old_one() -> None:
    new_seed = bytes(range(64, 96))
    new = VerifierKey.of_seed(ORIGIN, new_seed)
    text = Checkpoint(ORIGIN, 5, tree_hash(0, 5)).text()
    note = assemble(text, [sign(text, ORIGIN, new_seed), sign(text, ORIGIN, LOG_SEED)])
    assert open_checkpoint(note, [LOG, new]).log_keys == (new, LOG)
    assert open_checkpoint(note, [LOG]).log_keys == (LOG,)
    assert open_checkpoint(note, [new]).log_keys == (new,)


def test_only_a_key_of_the_checkpoint_s_own_log_opens_it() -> None:
    other_log = VerifierKey.of_seed("audit.example/op_b", LOG_SEED)
    # One log signs the other's origin: the key is known, the name is not the origin's.
    with pytest.raises(NoteError, match=r"no known key of the log audit\.example/op_a"):
        open_checkpoint(signed(300, name=other_log.name), [other_log, LOG], [WITNESS])
    with pytest.raises(NoteError, match="no known key of the log"):
        open_checkpoint(signed(300, seed=WITNESS_SEED), [LOG], [WITNESS])
    with pytest.raises(NoteError, match="no known key signed"):
        open_checkpoint(signed(300), [other_log])
    # A witness may bear the name of the log; it does not sign for the log.
    namesake = VerifierKey.of_seed(ORIGIN, WITNESS_SEED, Algorithm.COSIGNATURE_V1)
    text = Checkpoint(ORIGIN, 5, tree_hash(0, 5)).text()
    with pytest.raises(NoteError, match="no known key of the log"):
        open_checkpoint(assemble(text, [cosign(text, ORIGIN, WITNESS_SEED, 1)]), [LOG], [namesake])


def test_no_bit_of_a_signed_checkpoint_can_be_flipped() -> None:
    note = signed(300).encode()
    for bit in range(8 * len(note)):
        changed = bytearray(note)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            opened = open_checkpoint(bytes(changed), [LOG], [WITNESS])
        except NoteError:
            continue
        # The name or the hash of one key became unknown; the other one still signed the same text.
        assert opened.checkpoint.size == 300
        assert opened.log_keys == (LOG,)
        assert opened.cosignatures == ()


@given(st.integers(1, SIZE), st.randoms(use_true_random=False), st.binary(max_size=40))
def test_a_proof_file_round_trips_and_verifies(size: int, rng: random.Random, extra: bytes) -> None:
    index = rng.randrange(size)
    proof = proof_file(index, size, extra)
    assert LogProof.parse(proof.text()) == LogProof.parse(proof.text().encode()) == proof
    assert proof.verify(LEAVES[index], [LOG], [WITNESS]).checkpoint.size == size
    with pytest.raises(ProofError):
        proof.verify(LEAVES[index - 1] if size > 1 else bytes(32), [LOG])
    with pytest.raises(NoteError):
        proof.verify(LEAVES[index], [WITNESS])


def test_a_proof_file_is_as_specified() -> None:
    text = proof_file(2, 5, b"\0\1").text()
    head, _, note = text.partition("\n\n")
    hashes = [to_base64(each) for each in (LEAVES[3], tree_hash(0, 2), LEAVES[4])]
    assert head.split("\n") == ["c2sp.org/tlog-proof@v1", "extra AAE=", "index 2", *hashes]
    assert note == signed(5)
    assert (
        LogProof.parse(proof_file(0, 1).text()).text().startswith("c2sp.org/tlog-proof@v1\nindex 0\n\naudit.example/")
    )


def test_no_bit_of_a_proof_file_can_be_flipped_so_that_it_proves_something_else() -> None:
    content = proof_file(77, 300).text().encode()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            proof = LogProof.parse(bytes(changed))
            opened = proof.verify(LEAVES[77], [LOG], [WITNESS])
        except (NoteError, ProofError):
            continue
        assert (proof.index, opened.checkpoint.size, opened.cosignatures) == (77, 300, ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@v1", "@v2", "the first line"),
        ("c2sp", "\nc2sp", "the first line"),
        ("index 2\n", "", "no index line"),
        ("index 2", "index 02", "leading zeros"),
        ("index 2", "index  2", "leading zeros"),
        ("index 2", "index -1", "leading zeros"),
        ("extra AAE=\n", "extra \n", "without extra data"),
        ("extra AAE=\n", "extra AAE\n", "canonical"),
        ("extra AAE=\nindex 2", "index 2\nextra AAE=", "canonical"),
        ("index 2\n", "index 2\nAAE=\n", "32 bytes"),
        ("index 2\n", "index 2\n" + (to_base64(bytes(32)) + "\n") * 61, "more than 63"),
        ("\n\n", "\n", "no empty line|canonical"),
        ("index 2\n", "index 2\n\n", "does not verify"),
        ("extra", "\0", "no index line|control"),
    ],
)
def test_what_is_no_proof_file_is_refused(old: str, new: str, message: str) -> None:
    content = proof_file(2, 5, b"\0\1").text()
    with pytest.raises(NoteError, match=message):
        LogProof.parse(content.replace(old, new, 1)).verify(LEAVES[2], [LOG])


def test_a_proof_file_without_a_signed_checkpoint_is_not_read() -> None:
    content = proof_file(2, 5).text()
    for end in (content.index("— "), content.index("\n\n") + 2, content.index("\n\n") + 1):
        with pytest.raises(NoteError, match=r"no signature|no empty line"):
            LogProof.parse(content[:end])


def test_bytes_that_are_no_text_are_no_proof_file() -> None:
    with pytest.raises(NoteError, match="not UTF-8"):
        LogProof.parse(b"\xff")
    with pytest.raises(NoteError, match="more than 1000000 bytes"):
        LogProof.parse(bytes(1_000_001))


def test_a_proof_is_bound_to_the_size_that_was_signed() -> None:
    # The path of leaf 0 has the same shape in trees of 3 and 4 leaves; the size is signed.
    proof = proof_file(0, 3)
    forged = dataclasses.replace(proof, note=proof.note.replace("\n3\n", "\n4\n"))
    with pytest.raises(NoteError, match="does not verify"):
        forged.verify(LEAVES[0], [LOG])


def test_a_witness_request_is_as_specified() -> None:
    proof = consistency_proof(5, 300, tiles)
    old, *hashes, empty, note = witness_request(5, proof, signed(300)).split("\n", len(proof) + 2)
    assert (old, hashes, empty, note) == ("old 5", [to_base64(each) for each in proof], "", signed(300))
    assert witness_request(0, [], signed(300)) == f"old 0\n\n{signed(300)}"
