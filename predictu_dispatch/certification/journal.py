"""The write-ahead journal of a run: every request is on disk before its first byte is sent.

It suffices to undo the run, wherever the process was killed. `clean` reads it. One process at a
time plays or cleans a run, and from one folder one run at a time plays against a URL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from predictu_dispatch.certification.entries import (
    Entry,
    EntryError,
    OutcomeEntry,
    RequestEntry,
    RunEntry,
    lines_of,
    read_entry,
)
from predictu_dispatch.certification.live_guard import endpoint
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.target import Target

FILE_NAME: Final = "journal.ndjson"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class RunRefusedError(Exception):
    """A run that must not begin or go on: what happened, where, and what to do."""


class Journal:
    """The open journal of a run, locked for this process. `entries` are all that it has."""

    def __init__(
        self, file: Path, descriptor: int, url_lock: int, entries: list[Entry], *, damaged: Sequence[str] = ()
    ) -> None:
        self.file = file
        self.damage = tuple(
            f"the journal {file} is damaged in {line}; if it was a request, it is not undone: compare the players'"
            " balances, and ask the operator for bets of this run"
            for line in damaged
        )
        """A sentence for each line that cannot be read; all others are undone."""
        self.entries: list[Entry] = []
        self._sendings: dict[str, list[Prepared]] = {}
        self._add(entries)
        self._descriptor = descriptor
        self._url_lock = url_lock
        # Outcomes count too: the line of their request may be damaged.
        numbers = [entry.n for entry in entries if isinstance(entry, RequestEntry | OutcomeEntry)]
        self._next_n = 1 + max(numbers, default=0)

    @classmethod
    def create(cls, folder: Path, head: RunEntry) -> Self:
        """Create the run's folder and journal. Raises RunRefusedError if the run exists."""
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            url_lock = _locked_url(folder.parent, head.url)
            try:
                file = folder / FILE_NAME
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)
                journal = cls(file, descriptor, url_lock, [])
                _lock(descriptor, file)
            except BaseException:
                os.close(url_lock)
                raise
            journal.append([head])
            for changed in (folder, folder.parent):
                _sync_folder(changed)
        except FileExistsError:
            raise RunRefusedError(f"{folder / FILE_NAME} exists: every run needs a folder of its own") from None
        except OSError as error:
            raise RunRefusedError(f"cannot write the journal {folder / FILE_NAME}: {error.strerror}") from error
        return journal

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the journal of an earlier run, to clean up after it. Raises RunRefusedError."""
        file = folder / FILE_NAME
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise RunRefusedError(
                f"there is no run {folder.name} in {folder.parent}: there is no {file}; give the folder of its"
                " reports by --reports"
            ) from None
        except OSError as error:
            raise RunRefusedError(f"cannot open the journal {file}: {error.strerror}") from error
        url_lock = -1
        try:
            _lock(descriptor, file)
            entries, damaged, length = _read(file)
            # An unfinished last line was being written when its process ended; nothing was sent.
            os.ftruncate(descriptor, length)
            url_lock = _locked_url(folder.parent, _head(file, entries).url)
            return cls(file, descriptor, url_lock, entries, damaged=damaged)
        except BaseException:
            for opened in (descriptor, url_lock):
                if opened >= 0:
                    os.close(opened)
            raise

    @property
    def head(self) -> RunEntry:
        return _head(self.file, self.entries)

    @property
    def requests(self) -> int:
        """How many requests the journal has, repetitions included."""
        return sum(isinstance(entry, RequestEntry) for entry in self.entries)

    def check_target(self, target: Target, run: str) -> None:
        """Raise RunRefusedError if the journal is of another run or sandbox."""
        settings = target.settings
        expected: dict[str, tuple[object, object]] = {
            "run": (self.head.run, run),
            "operator": (self.head.operator_id, settings.operator_id),
            "URL": (self.head.url, settings.callback_url),
            "key": (self.head.kid, target.key.kid),
            "players": (", ".join(self.head.players), ", ".join(target.players)),
            "currency": (
                f"{self.head.currency}, {self.head.digits} digits",
                f"{target.currency}, {target.digits} digits",
            ),
            "amount_format": (self.head.amount_format, settings.amount_format),
        }
        for name, (written, given) in expected.items():
            if written != given:
                raise RunRefusedError(
                    f"the journal {self.file} is of another {name}: it was written for {written}, and this is {given};"
                    " clean the run with the sandbox and the key that it was played with"
                )

    def sendings_of(self, request_id: str) -> Sequence[Prepared]:
        """Return what was sent, or about to be sent, under a request_id, in this order."""
        return self._sendings.get(request_id, ())

    def next_n(self) -> int:
        """Return a number that no sending of this run has."""
        self._next_n += 1
        return self._next_n - 1

    def append(self, entries: Sequence[Entry], *, is_synced: bool = True) -> None:
        """Write the entries, and return when they are on disk. Raises RunRefusedError.

        Entries that may be lost, because a repetition finds them out again, need no sync.
        """
        lines = lines_of(entries)
        size = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._descriptor, lines[written:])
            if is_synced:
                os.fdatasync(self._descriptor)
        except OSError as error:
            # Half a line would make the next one unreadable.
            os.ftruncate(self._descriptor, size)
            raise RunRefusedError(
                f"cannot write the journal {self.file}: {error.strerror}; nothing more was sent; make room and undo"
                f" the run by --clean {self.file.parent.name}"
            ) from error
        self._add(entries)

    def _add(self, entries: Sequence[Entry]) -> None:
        self.entries.extend(entries)
        for entry in entries:
            if isinstance(entry, RequestEntry):
                self._sendings.setdefault(entry.prepared.request_id, []).append(entry.prepared)

    def close(self) -> None:
        """Release both locks."""
        os.close(self._descriptor)
        os.close(self._url_lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_entries(lines: bytes) -> tuple[list[Entry], list[str], int]:
    """Return the entries, the lines that cannot be read, and the length without a torn last line.

    Raises EntryError if the first line cannot be read: nothing else says whose the journal is.
    """
    length = lines.rfind(b"\n") + 1
    entries: list[Entry] = []
    damaged: list[str] = []
    for number, line in enumerate(lines[:length].split(b"\n")[:-1], start=1):
        try:
            entries.append(read_entry(line))
        except EntryError as error:
            if number == 1:
                raise EntryError(f"line 1: {error}") from None
            damaged.append(f"line {number}: {error}")
    return entries, damaged, length


def _read(file: Path) -> tuple[list[Entry], list[str], int]:
    try:
        return read_entries(file.read_bytes())
    except EntryError as error:
        raise RunRefusedError(
            f"the journal {file} is damaged in {error}; restore the file, or undo the run with the operator"
        ) from None


def _head(file: Path, entries: Iterable[Entry]) -> RunEntry:
    head = next(iter(entries), None)
    if not isinstance(head, RunEntry):
        raise RunRefusedError(f"the journal {file} has no first line: nothing was sent in this run, nothing is to undo")
    return head


def _lock(descriptor: int, file: Path) -> None:
    """Lock the journal until it is closed, also by a kill."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunRefusedError(f"run {file.parent.name} is in use by another process: wait until it has ended") from None


def _locked_url(reports: Path, url: str) -> int:
    """Lock the sandbox, however its URL is written, for runs in this folder of reports."""
    file = reports / f".{hashlib.sha256(repr(endpoint(url)).encode()).hexdigest()[:16]}.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunRefusedError(
            f"another run plays against {url}: two runs would move the same players' money; wait until it has ended"
        ) from None
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
