"""What every record has: an entry, its place in the log, and files with hashes in the entry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .archive import Archive, RefusedError
from .entries import ENTRY_BYTES_MAX, Entry, parse_entry
from .manifest import Folder, Manifest
from .merkle import leaf_hash, root_of
from .notes import NOTE_BYTES_MAX, Checkpoint, Key, open_checkpoint, parse_proof
from .policy import Policy

_OPENED_MAX: Final = 64
"""Verified checkpoints that are kept: all proofs of a bundle have one or a few."""


class UnprovedError(Exception):
    """Nothing proves or contradicts a statement; the message is its text then."""


class Verdict(StrEnum):
    """What the verifier concludes about a statement."""

    PROVED = "proved"
    CONTRADICTED = "contradicted"
    RECORD = "our record only"


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the report, its verdict, the files that it is about, and the reason."""

    verdict: Verdict
    text: str
    about: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is in the log, by a verified proof."""

    index: int
    checkpoint: Checkpoint


class Log:
    """The operator's log, as far as the bundle's proofs show it."""

    def __init__(self, archive: Archive, manifest: Manifest, policy: Policy | None, *, is_own: bool) -> None:
        self.archive = archive
        self.origin = manifest.origin
        self.operator_id = manifest.operator_id
        self.policy = policy
        self._is_own = is_own
        self.has_witness = False
        """True as soon as a known witness has cosigned a checkpoint."""
        self._opened: dict[str, Checkpoint] = {}
        self._roots: dict[int, bytes] = {}

    def entry(self, folder: Folder, name: str, kind: str) -> Entry:
        """Read an entry. Refused if it is malformed or of another kind."""
        path = folder.file(f"{name}.json")
        try:
            entry = parse_entry(self.archive.read(path, ENTRY_BYTES_MAX))
        except ValueError as error:
            raise RefusedError(path, str(error)) from None
        if entry.kind != kind:
            raise RefusedError(path, f"it is an entry of kind {entry.kind}, not {kind}")
        return entry

    def place(self, folder: Folder, name: str, entry: Entry) -> Place:
        """Verify that the entry is in this operator's log. Raises ValueError."""
        if entry["operator_id"] != self.operator_id:
            raise ValueError(f"it is an entry of the operator {entry['operator_id']}")
        return self._place(folder.file(f"{name}.tlog-proof"), entry)

    def cosigned(self, folder: Folder, name: str, entry: Entry, place: Place) -> Place:
        """The place by the proof of the earliest cosigned checkpoint, if the bundle has one.

        A key that the log has replaced since may have signed that checkpoint. A known witness's
        cosignature is enough: it says what the log was, and when.
        """
        path = folder.file(f"{name}.cosigned.tlog-proof")
        if path not in self.archive.members:
            return place
        earlier = self._place(path, entry, is_witness_enough=True)
        if earlier.index != place.index:
            raise ValueError(f"{path} is about another index")
        return earlier

    def _place(self, path: str, entry: Entry, *, is_witness_enough: bool = False) -> Place:
        proof = parse_proof(self.archive.read(path, NOTE_BYTES_MAX))
        checkpoint = self._open(proof.note, is_witness_enough=is_witness_enough)
        root = root_of(proof.index, checkpoint.size, leaf_hash(entry.content), proof.hashes)
        if root != checkpoint.root:
            raise ValueError("the inclusion proof leads to another root than the checkpoint's")
        return Place(proof.index, checkpoint)

    def _open(self, note: str, *, is_witness_enough: bool) -> Checkpoint:
        opened = self._opened.get(note)
        if opened is not None and (opened.log_keys or is_witness_enough):
            return opened
        if self.policy is None:
            raise UnprovedError("No key of the log is known, so nothing proves that it has this; give --policy FILE.")
        checkpoint = open_checkpoint(note, self.policy.keys, is_witness_enough=is_witness_enough)
        if checkpoint.origin != self.origin:
            raise ValueError(f"the checkpoint is of the log {checkpoint.origin}, not {self.origin}")
        if self._roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise ValueError(f"the log signed two roots for the size {checkpoint.size}")
        if not self.policy.is_met(set(checkpoint.cosigned_at)):
            lacks = f"the checkpoint of size {checkpoint.size} lacks cosignatures: the policy asks for"
            if self._is_own:
                # Witnesses need some time. A policy that the reader gave must be met at once.
                raise UnprovedError(f"Not proved yet, because {lacks} {self.policy.quorum}.")
            raise ValueError(f"{lacks} {self.policy.quorum}")
        if len(self._opened) == _OPENED_MAX:
            self._opened.clear()
        self.has_witness |= bool(checkpoint.cosigned_at)
        self._opened[note] = checkpoint
        return checkpoint

    def check_files(self, folder: Folder, entry: Entry, files: dict[str, str]) -> list[str]:
        """Compare files with the hashes of the entry; return the names of those that are there.

        Refused if one is missing and was not left out. Raises ValueError if one is another.
        """
        present = []
        for name, field in files.items():
            path, digest = folder.file(name), entry[field]
            member = self.archive.members.get(path)
            if member is None and digest is not None and name not in folder.withheld:
                raise RefusedError(path, "it is missing, and nothing says why it was left out")
            if member is None:
                continue
            if member.sha256 != digest:
                raise ValueError(f"{path} does not have the SHA-256 of the record's field {field}")
            present.append(name)
        return present


def first_cosignature(checkpoint: Checkpoint) -> tuple[Key, int] | None:
    """The witness that saw the checkpoint first, and when."""
    return min(checkpoint.cosigned_at.items(), key=lambda seen: (seen[1], seen[0].name), default=None)
