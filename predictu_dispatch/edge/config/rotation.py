"""Replaces an operator's signing key while daemons keep signing and may load the files at any time.

                op.pem      op.next.pem     op.previous.pem
    stage       A           B
    activate    B                           A
    retire      B

    revert      A           B                           after `activate`, instead of `retire`

`activate` and `revert` link, then rename, so that no file is ever missing. Whatever a daemon loads
in between, it signs with a published key. If one is killed between its two steps, the active key
has two names, and a second run completes it.
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
from predictu_dispatch.edge.config.files import is_credential, located, system_message
from predictu_dispatch.edge.config.keys import KeyRole, create_key_file, key_file_of, read_keys, sync


class RotationRefusedError(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirable:
    """The keys of a retirement."""

    active: SigningKey
    previous: SigningKey
    activated_at_s: float
    """Unix time on this host's clock; later if a file was changed or copied since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """The three key files of one operator. Each verb raises RotationRefusedError or OSError."""

    operator_id: str
    active_file: Path
    algorithm: SigningAlgorithm

    def stage(self) -> SigningKey:
        """Creates the staged key, as readable as the active one. Nothing signs with it yet."""
        with self._locked():
            keys = self._keys()
            if KeyRole.PREVIOUS in keys and keys.get(KeyRole.STAGED) == keys[KeyRole.ACTIVE]:
                raise RotationRefusedError(self._interrupted_revert(keys[KeyRole.PREVIOUS]))
            if KeyRole.STAGED in keys:
                raise RotationRefusedError(
                    f"{self._file(KeyRole.STAGED)} exists: key {keys[KeyRole.STAGED].kid} is staged already; to print"
                    f" it: {self._command('public')}; to make it active: {self._command('activate')}"
                )
            return create_key_file(self._file(KeyRole.STAGED), self.algorithm, readable_as=self.active_file)

    def activate(self) -> tuple[SigningKey, SigningKey]:
        """Makes the staged key active and the active key previous; returns the two.

        Completes an interrupted activate.
        """
        with self._locked():
            keys = self._keys()
            active, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.PREVIOUS)
            staged = self._next_active(keys)
            staged_file, previous_file = self._file(KeyRole.STAGED), self._file(KeyRole.PREVIOUS)
            # The file may not have been created by `stage`.
            sync(staged_file)
            if previous is None:
                os.link(self.active_file, previous_file)
                sync(self.active_file.parent)
            staged_file.replace(self.active_file)
            sync(self.active_file.parent)
            return staged, active

    def revert(self) -> tuple[SigningKey, SigningKey]:
        """Makes the previous key active and the active key staged; returns the two.

        Completes an interrupted revert, and undoes an interrupted activate.
        """
        with self._locked():
            keys = self._keys()
            active, staged = keys[KeyRole.ACTIVE], keys.get(KeyRole.STAGED)
            previous = self._revertible(keys)
            if previous == active and staged is not None:
                # An activate was interrupted before it renamed the staged key.
                self._file(KeyRole.PREVIOUS).unlink()
                sync(self.active_file.parent)
                return active, staged
            if staged is None:
                os.link(self.active_file, self._file(KeyRole.STAGED))
                sync(self.active_file.parent)
            self._file(KeyRole.PREVIOUS).replace(self.active_file)
            sync(self.active_file.parent)
            return previous, active

    def retirable(self) -> Retirable:
        """The keys of a retirement; raises RotationRefusedError if there is none."""
        with self._locked():
            return self._retirable()

    def retire(self, checked: Retirable) -> SigningKey:
        """Removes the previous key, if the keys are those that were checked."""
        with self._locked():
            now = self._retirable()
            if now != checked:
                raise RotationRefusedError("another rotation changed the keys meanwhile; run it again")
            self._file(KeyRole.PREVIOUS).unlink()
            sync(self.active_file.parent)
            return now.previous

    def _retirable(self) -> Retirable:
        keys = self._keys()
        active, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.PREVIOUS)
        if previous is None:
            next_step = "activate" if KeyRole.STAGED in keys else "stage"
            raise RotationRefusedError(
                f"nothing to retire: {self._file(KeyRole.PREVIOUS)} does not exist; to replace the active key"
                f" {active.kid}, also if it is compromised: {self._command(next_step)}"
            )
        if previous == active:
            raise RotationRefusedError(
                f"key {previous.kid} is still active, because an activate was interrupted; to complete it:"
                f" {self._command('activate')}"
            )
        if keys.get(KeyRole.STAGED) == active:
            raise RotationRefusedError(self._interrupted_revert(previous))
        # The system sets these times when a file is linked and renamed; nobody can set them back.
        files = (self.active_file, self._file(KeyRole.PREVIOUS))
        return Retirable(active=active, previous=previous, activated_at_s=max(file.stat().st_ctime for file in files))

    def _revertible(self, keys: dict[KeyRole, SigningKey]) -> SigningKey:
        active, staged, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.STAGED), keys.get(KeyRole.PREVIOUS)
        if previous is None or (previous == active and staged in {None, active}):
            waiting = f", key {staged.kid} is staged" if staged else ""
            raise RotationRefusedError(
                f"nothing to revert: {self._file(KeyRole.PREVIOUS)} has no other key; key {active.kid} is"
                f" active{waiting}"
            )
        if staged is not None and active not in {staged, previous}:
            raise RotationRefusedError(
                f"a revert would make the active key {active.kid} the staged one, but key {staged.kid}"
                f" is staged: {self._file(KeyRole.STAGED)}; nothing signs with that one: remove the file, then:"
                f" {self._command('revert')}"
            )
        return previous

    def _interrupted_revert(self, previous: SigningKey) -> str:
        return f"a revert to key {previous.kid} was interrupted; to complete it: {self._command('revert')}"

    def _next_active(self, keys: dict[KeyRole, SigningKey]) -> SigningKey:
        active, staged, previous = keys[KeyRole.ACTIVE], keys.get(KeyRole.STAGED), keys.get(KeyRole.PREVIOUS)
        if staged is None:
            kept = f", key {previous.kid} is the previous one" if previous else ""
            raise RotationRefusedError(
                f"nothing is staged: {self._file(KeyRole.STAGED)} does not exist; key {active.kid} is active{kept};"
                f" to create the next one: {self._command('stage')}"
            )
        if previous is not None and previous != active:
            if staged == active:
                raise RotationRefusedError(self._interrupted_revert(previous))
            raise RotationRefusedError(
                f"the previous key {previous.kid} still exists in {self._file(KeyRole.PREVIOUS)}, and only one is kept;"
                f" once no daemon signs with it any more: {self._command('retire')}"
            )
        if staged == active:
            raise RotationRefusedError(
                f"key {staged.kid} is both staged and active: {self._file(KeyRole.STAGED)} is a copy; remove it, then:"
                f" {self._command('stage')}"
            )
        return staged

    def _keys(self) -> dict[KeyRole, SigningKey]:
        keys, wrong = read_keys(self.active_file, self.algorithm)
        for role, error in wrong.items():
            message = system_message(error) if isinstance(error, OSError) else str(error)
            raise RotationRefusedError(
                f"the {role} key {self._file(role)}: {message}; fix it first (a rotation keeps the algorithm, because"
                " an operator accepts only one)"
            )
        return keys

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Excludes other rotations in this folder; the kernel releases the lock of a killed one."""
        if not os.path.lexists(self.active_file):
            raise RotationRefusedError(
                f"there is no active key: {self.active_file} does not exist; to create one: {self._command('new')}"
            )
        for file in map(self._file, KeyRole):
            if file.is_symlink():
                raise RotationRefusedError(
                    f"{file} is a symbolic link, which a rotation would replace; replace it by the key file itself"
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
                f"another rotation is running in {self.active_file.parent}; try again when it has ended"
            ) from None

    def _file(self, role: KeyRole) -> Path:
        return key_file_of(self.active_file, role)

    def _command(self, verb: str) -> str:
        return f"predictu-dispatch keys {verb} {self.operator_id}"


def rotation_of(file: Path, signing: SigningSettings, environ: Mapping[str, str]) -> KeyRotation:
    """Raises RotationRefusedError if the keys of an operator's file may be systemd credentials."""
    path = located(signing.key_file, file, environ)
    # A person's shell cannot see the unit's credentials: a bare name without a file may be one.
    is_missing = path.name == signing.key_file and not os.path.lexists(path)
    if is_missing or is_credential(path, environ):
        staged, previous = (key_file_of(path, role).name for role in (KeyRole.STAGED, KeyRole.PREVIOUS))
        what = (
            f"{path} does not exist; to create it: predictu-dispatch keys new {file.stem}. If it is a systemd"
            " credential, only the unit can change it"
            if is_missing
            else f"{path.name} is a systemd credential, and only the unit can change it"
        )
        raise RotationRefusedError(
            f"{what} (LoadCredential=NAME:FILE, then restart the daemon): to stage, provide the next key as {staged};"
            f" to activate, provide that one as {path.name} and the old one as {previous}; to retire, remove {previous}"
        )
    return KeyRotation(operator_id=file.stem, active_file=path, algorithm=signing.algorithm)
