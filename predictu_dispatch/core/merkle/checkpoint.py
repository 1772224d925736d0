"""Checkpoints (c2sp.org/tlog-checkpoint), proof files (tlog-proof), requests to witnesses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle import note
from predictu_dispatch.core.merkle.note import NoteError, VerifiedSignature, VerifierKey, from_base64, to_base64
from predictu_dispatch.core.merkle.tiles import HASH_BYTES, SIZE_MAX
from predictu_dispatch.core.merkle.verification import PROOF_HASHES_MAX, verify_inclusion

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's size and root: what the log signs."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """Lines after the root. We write none. They are kept when read, because they are signed."""

    def text(self) -> str:
        """Return the note's text. Raises NoteError if parse() would not return this checkpoint."""
        text = "\n".join([self.origin, str(self.size), to_base64(self.root), *self.extensions, ""])
        if self.parse(text) != self:
            raise NoteError("the origin or an extension has a line break")
        return text

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a verified note."""
        note.check_text(text)
        lines = text[:-1].split("\n")
        if len(lines) < 3 or not all(lines):  # noqa: PLR2004 - origin, size, root
            raise NoteError("a checkpoint has at least three lines, and none is empty")
        origin, size, root, *extensions = lines
        return cls(origin, number_of(size), hash_of(root), tuple(extensions))


class SignedCheckpoint(NamedTuple):
    """A checkpoint that its log signed, with the cosignatures of known witnesses."""

    checkpoint: Checkpoint
    log_keys: tuple[VerifierKey, ...]
    cosignatures: tuple[VerifiedSignature, ...]


def open_checkpoint(
    signed: str | bytes, log_keys: Sequence[VerifierKey], witness_keys: Sequence[VerifierKey] = ()
) -> SignedCheckpoint:
    """Verify a checkpoint. A key of `log_keys` whose name is the origin must have signed it.

    If the signature of any known key does not verify, the whole note is refused.
    """
    text, signatures = note.verify(signed, [*log_keys, *witness_keys])
    checkpoint = Checkpoint.parse(text)
    by_log = tuple(key for key, _ in signatures if key in log_keys and key.name == checkpoint.origin)
    if not by_log:
        raise NoteError(f"no known key of the log {checkpoint.origin} signed its checkpoint")
    return SignedCheckpoint(checkpoint, by_log, tuple(each for each in signatures if each.key in witness_keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """A file `.tlog-proof`: an entry is in a log. Trust nothing in it before `verify()`."""

    index: int
    proof: tuple[bytes, ...]
    note: str
    """The signed checkpoint, with all its signatures."""
    extra: bytes = b""
    """Nobody signs this. The file has no such line if it is empty."""

    def text(self) -> str:
        extra = [f"extra {to_base64(self.extra)}"] if self.extra else []
        lines = [PROOF_HEADER, *extra, f"index {self.index}", *map(to_base64, self.proof), "", self.note]
        return "\n".join(lines)

    @classmethod
    def parse(cls, content: str | bytes) -> LogProof:
        """Read the file. Raises NoteError if it is malformed."""
        if len(content) > note.NOTE_BYTES_MAX:
            raise NoteError(f"the proof has more than {note.NOTE_BYTES_MAX} bytes")
        if isinstance(content, bytes):
            try:
                content = content.decode()
            except UnicodeDecodeError:
                raise NoteError("the proof is not UTF-8") from None
        head, _, signed = content.partition("\n\n")
        header, *lines = head.split("\n")
        if header != PROOF_HEADER:
            raise NoteError(f"the first line is not {PROOF_HEADER}")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0).removeprefix("extra "))
            if not extra:
                raise NoteError("there is an extra line without extra data")
        if not lines or not lines[0].startswith("index "):
            raise NoteError("there is no index line")
        index = number_of(lines.pop(0).removeprefix("index "))
        if len(lines) > PROOF_HASHES_MAX:
            raise NoteError(f"the proof has more than {PROOF_HASHES_MAX} hashes")
        note.parse(signed)
        return cls(index=index, proof=tuple(map(hash_of, lines)), note=signed, extra=extra)

    def verify(
        self, leaf_hash: bytes, log_keys: Sequence[VerifierKey], witness_keys: Sequence[VerifierKey] = ()
    ) -> SignedCheckpoint:
        """Return the checkpoint if the leaf is in its tree, else raise NoteError or ProofError."""
        opened = open_checkpoint(self.note, log_keys, witness_keys)
        checkpoint = opened.checkpoint
        verify_inclusion(self.index, checkpoint.size, leaf_hash, checkpoint.root, self.proof)
        return opened


def witness_request(old_size: int, proof: Sequence[bytes], signed: str) -> str:
    """Return the body of `add-checkpoint` (c2sp.org/tlog-witness).

    `old_size` is the size that the witness cosigned last, 0 if none; `proof` leads from there.
    """
    return "\n".join([f"old {old_size}", *map(to_base64, proof), "", signed])


def number_of(text: str) -> int:
    """Read a size or an index: ASCII decimals without leading zeros, below 2**63."""
    if not _NUMBER.fullmatch(text) or int(text) > SIZE_MAX:
        raise NoteError(f"{text[:40]!r} is no decimal number below 2**63 without leading zeros")
    return int(text)


def hash_of(text: str) -> bytes:
    """Read a SHA-256 hash in base64."""
    value = from_base64(text)
    if len(value) != HASH_BYTES:
        raise NoteError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return value
