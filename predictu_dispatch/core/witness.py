"""What is sent to a witness (c2sp.org/tlog-witness), and what its answers mean.

A witness cosigns a checkpoint that continues the one it cosigned before. If it refuses, our log is
not the one that it has seen: the database was restored from an older state, or was changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from predictu_dispatch.core.merkle import note
from predictu_dispatch.core.merkle.checkpoint import number_of
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey
from predictu_dispatch.core.merkle.tiles import ProofError, Tile, Tiles, required_tiles
from predictu_dispatch.core.merkle.tree import consistency_proof
from predictu_dispatch.core.printable import printable

RETRY_FIRST_S: Final = 10.0
RETRY_MAX_S: Final = 600.0
ANSWER_BYTES_MAX: Final = 65_536
_TEXT_CHARS_MAX: Final = 200
"""How much of an answer is kept as the reason of a failure."""
_OK, _CONFLICT = 200, 409
_REFUSALS: Final = {
    400: "it calls the request malformed",
    403: "it does not know the key that signs our log",
    404: "it does not know our log",
    422: "the log does not continue what it cosigned before",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A configured witness."""

    name: str
    key: VerifierKey
    url: str
    """`/add-checkpoint` is added to it."""
    operators: frozenset[str] = frozenset()
    """The operators whose logs it cosigns; empty for all."""

    def knows(self, operator_id: str) -> bool:
        """Whether it cosigns the log of this operator."""
        return not self.operators or operator_id in self.operators


class Submission(NamedTuple):
    """A checkpoint that a witness has not cosigned yet, and the witness's state for this log."""

    operator_id: str
    size: int
    checkpoint: str
    """The signed note."""
    cosigned_size: int = 0
    """The largest size that the witness has cosigned, 0 if none."""
    failures: int = 0
    """In a row, since it cosigned last."""
    failed_s_ago: float | None = None

    def is_due(self) -> bool:
        """Whether it is sent now, or later because the last one failed."""
        if self.failures == 0 or self.failed_s_ago is None:
            return True
        return self.failed_s_ago >= min(RETRY_FIRST_S * 2.0 ** min(self.failures - 1, 20), RETRY_MAX_S)


class WitnessFigures(NamedTuple):
    """The state of a witness for one log, for metrics."""

    operator_id: str
    witness: str
    behind_s: float
    """For how long a checkpoint has been waiting for its cosignature; 0 if none is."""
    is_refused: bool


class Answer(NamedTuple):
    """An HTTP answer of a witness; `body` has at most ANSWER_BYTES_MAX bytes."""

    status: int
    body: bytes


class Silence(NamedTuple):
    """No answer, and why."""

    reason: str


class Cosigned(NamedTuple):
    """The verified signature line, without its newline."""

    line: str


class Conflict(NamedTuple):
    """The witness has cosigned another size than the database says."""

    size: int


class Refusal(NamedTuple):
    """It answered that our log does not continue the one it knows."""

    reason: str


class Failure(NamedTuple):
    """No usable answer; the witness is asked again later."""

    reason: str


Outcome: TypeAlias = Cosigned | Conflict | Refusal | Failure


def judge(answer: Answer | Silence, sent: Submission, old_size: int, key: VerifierKey) -> Outcome:
    """Return what the answer to `sent`, with a proof from `old_size`, means."""
    if isinstance(answer, Silence):
        return Failure(answer.reason)
    if answer.status == _OK:
        return _cosigned(answer.body, sent.checkpoint, key)
    if answer.status == _CONFLICT:
        return _conflict(answer.body, sent.size, old_size)
    if (meaning := _REFUSALS.get(answer.status)) is not None:
        return Refusal(f"{meaning} ({answer.status}{_quoted(answer.body)})")
    return Failure(f"it answered {answer.status}{_quoted(answer.body)}")


def beyond_our_log(conflict: Conflict, newest_size: int) -> Refusal | None:
    """Return a refusal if no checkpoint of ours can continue what the witness has cosigned."""
    if conflict.size <= newest_size:
        return None
    return Refusal(
        f"it has cosigned {conflict.size} entries, and our log has {newest_size}:"
        " the database was restored from an older state, or entries were removed"
    )


def tiles_of_proof(old_size: int, size: int) -> tuple[Tile, ...]:
    """Return the tiles that the proof from one size to another reads."""
    return required_tiles(lambda tiles: consistency_proof(old_size, size, tiles))


def proof_of(old_size: int, size: int, tiles: Tiles) -> list[bytes] | Refusal:
    """Return the consistency proof, or a refusal of our own if the tiles do not give one."""
    try:
        return consistency_proof(old_size, size, tiles)
    except ProofError as error:
        return Refusal(f"no proof from {old_size} to {size} entries can be made: {error}")


def _cosigned(body: bytes, checkpoint: str, key: VerifierKey) -> Cosigned | Failure:
    try:
        text = note.parse(checkpoint).text
        own = [
            one for one in note.parse_signatures(body.decode()) if (one.name, one.key_hash) == (key.name, key.key_hash)
        ]
        if own:
            # Every further signature of the same key says the same.
            note.verify(note.assemble(text, own[:1]), [key])
            return Cosigned(own[0].line.rstrip("\n"))
    except (NoteError, UnicodeDecodeError) as error:
        return Failure(f"it answered 200 without a cosignature: {error}")
    return Failure(f"it answered 200 without a cosignature of {key}")


def _conflict(body: bytes, size: int, old_size: int) -> Conflict | Refusal | Failure:
    try:
        theirs = number_of(body.decode().removesuffix("\n"))
    except (NoteError, UnicodeDecodeError):
        theirs = None
    if theirs is not None and theirs != old_size:
        return Conflict(theirs)
    if old_size == size:
        return Refusal(f"it has cosigned another log of {size} entries")
    return Failure(f"it answered {_CONFLICT}{_quoted(body)} to a request that begins at {old_size}")


def one_line(text: str) -> str:
    """Return foreign text, shortened and printable."""
    return printable(" ".join(text.split()))[:_TEXT_CHARS_MAX]


def _quoted(body: bytes) -> str:
    text = one_line(body.decode("utf-8", "replace"))
    return f": {text}" if text else ""
