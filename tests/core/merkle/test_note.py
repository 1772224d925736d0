"""Signed notes: what Go's package signs verifies here, and nothing else is a note."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from predictu_dispatch.core.merkle.note import (
    Algorithm,
    NoteError,
    Signature,
    VerifierKey,
    assemble,
    cosign,
    from_base64,
    parse,
    parse_signatures,
    sign,
    verify,
)

# The example in the documentation of golang.org/x/mod/sumdb/note. Ed25519 is deterministic.
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
ENOCH = VerifierKey.parse("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)  # fmt: skip
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
NOTE = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"

SEED = bytes(range(32))
WITNESS = VerifierKey.of_seed("witness.example/w1", SEED, Algorithm.COSIGNATURE_V1)
LOG = VerifierKey.of_seed("log.example/op_a", SEED[::-1])
CHECKPOINT = "log.example/op_a\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n")).map(lambda text: f"{text}\n")
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="+"), min_size=1)


def vkey_of(name: str, key: bytes) -> str:
    """Return a vkey of anything, with its right hash."""
    key_hash = hashlib.sha256(f"{name}\n".encode() + key).hexdigest()[:8]
    return f"{name}+{key_hash}+{base64.b64encode(key).decode()}"


def test_the_published_note_is_signed_and_verified_as_published() -> None:
    assert assemble(TEXT, [sign(TEXT, "PeterNeumann", PETER_SEED)]) == f"{TEXT}\n{PETER_LINE}"
    assert [key for key, _ in verify(NOTE, [PETER]).signatures] == [PETER]
    assert [key for key, _ in verify(NOTE.encode(), [ENOCH, PETER]).signatures] == [PETER, ENOCH]
    assert verify(NOTE, [PETER]).text == TEXT
    assert vkey_of(PETER.name, b"\1" + PETER.public_key) == str(PETER)
    assert str(PETER) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_the_specification_s_cosignature_has_its_time() -> None:
    # Its key is not published, so only the layout can be compared.
    [published] = parse_signatures(
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/"
        "zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    ours = cosign(CHECKPOINT, "witness.example.com/w1", SEED, 1_679_315_147)
    assert published.signature[:8] == ours.signature[:8] == (1_679_315_147).to_bytes(8, "big")
    assert len(published.line) == len(ours.line)


@given(texts, names, st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1))
def test_a_note_and_its_keys_round_trip(text: str, name: str, seed: bytes, time_s: int) -> None:
    log = VerifierKey.of_seed(name, seed)
    witness = VerifierKey.of_seed(name, seed, Algorithm.COSIGNATURE_V1)
    assert VerifierKey.parse(str(log)) == log != witness == VerifierKey.parse(str(witness))
    signatures = sign(text, name, seed), cosign(text, name, seed, time_s)
    note = assemble(text, signatures)
    assert parse(note) == parse(note.encode()) == (text, signatures)
    assert verify(note, [witness, log]) == (text, ((log, None), (witness, time_s)))
    # The same key, name and text: each algorithm takes only its own signature.
    for key in (log, witness):
        assert [each.key for each in verify(note, [key]).signatures] == [key]
        swapped = [
            Signature(name, key.key_hash, each.signature) for each in signatures if each.key_hash != key.key_hash
        ]
        with pytest.raises(NoteError, match="does not verify"):
            verify(assemble(text, swapped), [key])


def test_unknown_signatures_are_ignored() -> None:
    log, witness = sign(CHECKPOINT, LOG.name, SEED[::-1]), cosign(CHECKPOINT, WITNESS.name, SEED, 17)
    same_name = Signature(LOG.name, b"\0\0\0\0", b"x")
    same_hash = Signature("other", LOG.key_hash, b"x")
    future_algorithm = Signature("post.quantum", b"\1\2\3\4", bytes(2_420))
    note = assemble(CHECKPOINT, [same_name, same_hash, future_algorithm, log, witness, log])
    assert verify(note, [LOG]).signatures == ((LOG, None),)
    assert verify(note, [LOG, WITNESS]).signatures == ((LOG, None), (WITNESS, 17))
    with pytest.raises(NoteError, match="no known key"):
        verify(note, [PETER])
    with pytest.raises(NoteError, match="no known key"):
        verify(note, [])


def test_a_known_key_s_bad_signature_refuses_the_note() -> None:
    log, witness = sign(CHECKPOINT, LOG.name, SEED[::-1]), cosign(CHECKPOINT, WITNESS.name, SEED, 17)
    for good, bad in ((log, witness), (witness, log)):
        for place in range(len(bad.signature)):
            flipped = bytearray(bad.signature)
            flipped[place] ^= 1
            altered = bad._replace(signature=bytes(flipped))
            for order in ([good, altered], [altered, good]):
                with pytest.raises(NoteError, match="does not verify"):
                    verify(assemble(CHECKPOINT, order), [LOG, WITNESS])
        for value in (b"\0", bad.signature[:-1], bad.signature + b"\0", bytes(64), bytes(72), b"\xff" * 72):
            with pytest.raises(NoteError, match="does not verify"):
                verify(assemble(CHECKPOINT, [good, bad._replace(signature=value)]), [LOG, WITNESS])
    # A second signature of a key that has signed well is no better.
    with pytest.raises(NoteError, match="does not verify"):
        verify(assemble(CHECKPOINT, [log, log._replace(signature=bytes(64))]), [LOG])


@given(st.integers(0, len(NOTE.encode()) * 8 - 1))
def test_no_bit_of_a_signed_text_or_of_its_signature_can_be_flipped(bit: int) -> None:
    note = bytearray(f"{TEXT}\n{PETER_LINE}".encode())
    place = bit // 8 % len(note)
    note[place] ^= 1 << bit % 8
    with pytest.raises(NoteError):
        verify(bytes(note), [PETER])


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("", "no empty line"),
        (TEXT, "no empty line"),
        (f"{TEXT}\n", "there is no signature"),
        (f"\n{PETER_LINE}", "no empty line"),
        (f"{TEXT}\n{PETER_LINE}"[:-1], "does not end in a newline"),
        (f"{TEXT}\n{PETER_LINE}\n", "there is no signature"),
        (f"{TEXT}\n{PETER_LINE}Unexpected line.\n", "signature line"),
        (f"{TEXT}\n{PETER_LINE}— PeterNeumann\n", "signature line"),
        (f"{TEXT}\n{PETER_LINE.replace('—', '-')}", "signature line"),
        (f"{TEXT}\n{PETER_LINE.replace('— ', '—  ')}", "signature line"),
        (f"{TEXT}\n{PETER_LINE.replace('Peter', 'Peter ')}", "signature line"),
        (f"{TEXT}\n{PETER_LINE.replace('Peter', 'Peter+')}", "cannot name a key"),
        (f"{TEXT}\n" + PETER_LINE.replace("Peter", "Peter\u2003"), "cannot name a key"),
        (f"{TEXT}\n" + PETER_LINE.replace("Peter", "Peter\0"), "control characters"),
        (f"{TEXT}\n{PETER_LINE.replace('=', '')}", "not canonical base64"),
        (f"{TEXT}\n{PETER_LINE.replace('nAM=', 'nAN=')}", "not canonical base64"),
        (f"{TEXT}\n{PETER_LINE.replace('=', '==')}", "not canonical base64"),
        (f"{TEXT}\n{PETER_LINE.replace('/', '_')}", "not canonical base64"),
        (f"{TEXT}\n— PeterNeumann x08gow==\n", "too short"),
        (f"\t{TEXT}\n{PETER_LINE}", "control characters"),
        (f"{TEXT}\n{PETER_LINE}".replace("\n", "\r\n"), "no empty line"),
        (b"\xff" + f"{TEXT}\n{PETER_LINE}".encode(), "not UTF-8"),
        (f"\ud800{TEXT}\n{PETER_LINE}", "UTF-8"),
        (f"{TEXT}\n" + PETER_LINE * 101, "more than 100 signatures"),
        (f"{'x' * 1_000_000}\n\n{PETER_LINE}", "more than 1000000 bytes"),
    ],
)
def test_what_is_no_note_is_refused(note: str | bytes, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        verify(note, [PETER])


@pytest.mark.parametrize("vkey", [str(PETER), str(WITNESS)])
def test_no_part_and_no_change_of_a_vkey_is_one(vkey: str) -> None:
    for begin in range(len(vkey)):
        for end in range(begin, len(vkey) + 1):
            if (begin, end) != (0, len(vkey)):
                with pytest.raises(NoteError):
                    VerifierKey.parse(vkey[begin:end])
    for place, character in enumerate(vkey):
        with pytest.raises(NoteError):
            VerifierKey.parse(vkey[:place] + chr(ord(character) + 1) + vkey[place + 1 :])


@pytest.mark.parametrize(
    ("vkey", "message"),
    [
        (vkey_of("a", b"\1" + bytes(31)), "has 32 bytes, not 31"),
        (vkey_of("a", b"\4" + bytes(33)), "has 32 bytes, not 33"),
        (vkey_of("a", b"\6" + bytes(1_312)), "no known type"),
        (vkey_of("a", b""), "no known type"),
        (vkey_of("", b"\1" + bytes(32)), "cannot name a key"),
        (str(PETER) + "\n", "base64"),
        (str(PETER).replace("Peter", "Peter\N{EM SPACE}"), "cannot name a key"),
    ],
)
def test_what_is_no_vkey_is_refused(vkey: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("text", ["", "without a newline", "a\ttab\n", "a\r\n", "\ud800\n"])
def test_what_is_no_text_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        sign(text, "a", SEED)
    with pytest.raises(NoteError):
        cosign(text, "a", SEED, 1)


def test_a_note_needs_a_signature_and_a_time_that_fits() -> None:
    with pytest.raises(NoteError, match="needs a signature"):
        assemble(TEXT, [])
    for time_s in (-1, 2**63):
        with pytest.raises(NoteError, match="the time"):
            cosign(CHECKPOINT, WITNESS.name, SEED, time_s)


def test_a_cosignature_of_a_time_that_does_not_fit_is_refused() -> None:
    for time_s, fits in ((2**63 - 1, True), (2**63, False), (2**64 - 1, False)):
        message = f"cosignature/v1\ntime {time_s}\n{CHECKPOINT}".encode()
        signature = time_s.to_bytes(8, "big") + SigningKey(SEED).sign(message).signature
        note = assemble(CHECKPOINT, [Signature(WITNESS.name, WITNESS.key_hash, signature)])
        if fits:
            assert verify(note, [WITNESS]).signatures == ((WITNESS, time_s),)
        else:
            with pytest.raises(NoteError, match="does not verify"):
                verify(note, [WITNESS])


@given(st.binary(max_size=80), st.text("ABwx09+/=-_ \n", max_size=12))
def test_base64_has_one_text_for_one_value(value: bytes, text: str) -> None:
    assert from_base64(base64.b64encode(value).decode()) == value
    try:
        decoded = from_base64(text)
    except NoteError:
        return
    assert base64.b64encode(decoded).decode() == text
