"""One key takes another's place, while daemons go on signing and may load the files at any moment.

    stage       op.pem = A                      op.next.pem = B
    activate    op.pem = A   B                  op.previous.pem = A     (link, then rename: nothing is ever missing)
    retire      op.pem = B

Whatever a daemon loads in between, it signs with a key that is published. Killed between its two steps, `activate`
leaves the active key under both names, which it knows when it runs again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from predictu_dispatch.core.operator_settings import SigningAlgorithm, SigningSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.files import is_credential, located, why
from predictu_dispatch.edge.config.keys import KeyRole, create_key_file, key_file_of, read_keys, sync_folder


class RotationRefusedError(Exception):
    """Nothing was changed; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """The three key files of one operator. Each verb raises RotationRefusedError, or OSError if the disk refuses."""

    operator_id: str
    active_file: Path
    algorithm: SigningAlgorithm

    def stage(self) -> SigningKey:
        """A fresh key lies staged, as readable as the active one. Nothing signs with it yet."""
        with self._alone():
            keys = self._keys()
            if KeyRole.STAGED in keys:
                raise RotationRefusedError(
                    f"{self._file(KeyRole.STAGED)} exists and stays as it is: key {keys[KeyRole.STAGED].kid} is staged"
                    f" already; to print it: {self._command('public')}; to make it the active one:"
                    f" {self._command('activate')}"
                )
            return create_key_file(self._file(KeyRole.STAGED), self.algorithm, readable_as=self.active_file)

    def activate(self) -> tuple[SigningKey, SigningKey]:
        """The staged key is the active one, and the one before it the previous one; returns the two.

        What an activate that was interrupted has begun is completed.
        """
        with self._alone():
            keys = self._keys()
            active, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.PREVIOUS)
            staged = self._fit_to_follow(keys)
            staged_file, previous_file = self._file(KeyRole.STAGED), self._file(KeyRole.PREVIOUS)
            # It may have come by another way than `stage`.
            _sync_file(staged_file)
            if previous is None:
                os.link(self.active_file, previous_file)
                sync_folder(self.active_file.parent)
            staged_file.replace(self.active_file)
            sync_folder(self.active_file.parent)
            return staged, active

    def retire(self) -> SigningKey:
        """The previous key's file is gone, and nothing else; returns that key."""
        with self._alone():
            keys = self._keys()
            previous = keys.get(KeyRole.PREVIOUS)
            if previous is None:
                raise RotationRefusedError(
                    f"there is nothing to retire: {self._file(KeyRole.PREVIOUS)} does not exist; a key is retired after"
                    f" another one has taken its place: {self._command('activate')}"
                )
            if previous == keys[KeyRole.ACTIVE]:
                raise RotationRefusedError(
                    f"key {previous.kid} is still the active one: an activate was interrupted; to complete it:"
                    f" {self._command('activate')}"
                )
            self._file(KeyRole.PREVIOUS).unlink()
            sync_folder(self.active_file.parent)
            return previous

    def _fit_to_follow(self, keys: dict[KeyRole, SigningKey]) -> SigningKey:
        """The staged key, if it may become the active one now."""
        active, staged, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.STAGED), keys.get(KeyRole.PREVIOUS)
        if staged is None:
            kept = f", key {previous.kid} was so before it" if previous else ""
            raise RotationRefusedError(
                f"nothing is staged: {self._file(KeyRole.STAGED)} does not exist; key {active.kid} is active{kept};"
                f" to make the next one: {self._command('stage')}"
            )
        if previous is not None and previous != active:
            raise RotationRefusedError(
                f"the previous key {previous.kid} is still there, in {self._file(KeyRole.PREVIOUS)}, and only one is"
                f" kept; once no daemon signs with it any more: {self._command('retire')}"
            )
        if staged == active:
            raise RotationRefusedError(
                f"key {staged.kid} is staged and active at once: {self._file(KeyRole.STAGED)} is a copy; remove it,"
                f" then: {self._command('stage')}"
            )
        return staged

    def _keys(self) -> dict[KeyRole, SigningKey]:
        keys, wrong = read_keys(self.active_file, self.algorithm)
        for role, error in wrong.items():
            words = why(error) if isinstance(error, OSError) else str(error)
            raise RotationRefusedError(
                f"the {role} key {self._file(role)}: {words}; put it right first (a rotation keeps the algorithm,"
                " because an operator accepts one only)"
            )
        return keys

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other rotation is at work in this folder; one that was killed holds nothing up."""
        if not os.path.lexists(self.active_file):
            raise RotationRefusedError(
                f"there is no active key, {self.active_file} does not exist; to make one: {self._command('new')}"
            )
        for file in map(self._file, KeyRole):
            if file.is_symlink():
                raise RotationRefusedError(
                    f"{file} is a symbolic link, which a rotation would replace; put the key itself in its place"
                )
        folder = os.open(self.active_file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock(folder)
            yield
        finally:
            os.close(folder)

    def _lock(self, folder: int) -> None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RotationRefusedError(
                f"another rotation is at work in {self.active_file.parent}; try again when it has ended"
            ) from None

    def _file(self, role: KeyRole) -> Path:
        return key_file_of(self.active_file, role)

    def _command(self, verb: str) -> str:
        return f"predictu-dispatch keys {verb} {self.operator_id}"


def rotation_of(file: Path, signing: SigningSettings, environ: Mapping[str, str]) -> KeyRotation:
    """The rotation of the keys that an operator's file names.

    Raises RotationRefusedError where systemd keeps them, or may keep them, and says what to do there.
    """
    path = located(signing.key_file, file, environ)
    # A person's shell knows nothing of the unit's credentials: a bare name for which there is no file may be one.
    is_missing = path.name == signing.key_file and not os.path.lexists(path)
    if is_missing or is_credential(path, environ):
        staged, previous = (key_file_of(path, role).name for role in (KeyRole.STAGED, KeyRole.PREVIOUS))
        what = (
            f"{path} does not exist; to make it: predictu-dispatch keys new {file.stem}. If it should be a systemd"
            " credential, only the unit can change it"
            if is_missing
            else f"{path.name} is a systemd credential, and only the unit can change it"
        )
        raise RotationRefusedError(
            f"{what} (LoadCredential=NAME:FILE, then restart the daemon): to stage, provide the next key as {staged};"
            f" to activate, provide that one as {path.name} and the old one as {previous}; to retire, provide"
            f" {previous} no more"
        )
    return KeyRotation(operator_id=file.stem, active_file=path, algorithm=signing.algorithm)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
