"""The journal of a run: readable after any kill, and used by one process at a time."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from predictu_dispatch.certification.entries import (
    JOURNAL_VERSION,
    Entry,
    EntryError,
    OutcomeEntry,
    RequestEntry,
    RunEntry,
    StartEntry,
    VerdictEntry,
    lines_of,
)
from predictu_dispatch.certification.journal import Journal, RunRefusedError, read_entries
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.scenario import ScenarioVerdict
from tests.certification.test_books import MAKE

HEAD = RunEntry(
    version=JOURNAL_VERSION,
    run="run",
    operator_id="op_abc123",
    url="http://127.0.0.1:1/",
    kid="kid",
    players=("p-1", "p-2"),
    currency="EUR",
    digits=2,
    amount_format="subunits",
    at="2026-11-30T10:00:00.000+00:00",
)
ENTRIES: list[Entry] = [
    HEAD,
    StartEntry(player_id="p-1", balance=10_000),
    RequestEntry(n=1, prepared=MAKE),
    OutcomeEntry(n=1, outcome=Outcome.REFUSED, reason="not_json", status='Ä\n"', http_status=None),
    VerdictEntry(scenario="s-1", verdict=ScenarioVerdict.REVIEW),
]


def written(folder: Path) -> Path:
    with Journal.create(folder, HEAD) as journal:
        journal.append(ENTRIES[1:])
    return folder / "journal.ndjson"


def test_what_is_written_is_read_again_cut_anywhere_without_the_unfinished_line() -> None:
    lines = lines_of(ENTRIES)
    ends = [index + 1 for index, octet in enumerate(lines) if octet == 0x0A]
    for length in range(len(lines) + 1):
        complete = sum(end <= length for end in ends)
        assert read_entries(lines[:length]) == (ENTRIES[:complete], [], ends[complete - 1] if complete else 0)


def test_an_unfinished_line_is_cut_off_before_the_next_one_is_written(tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    file.write_bytes(file.read_bytes()[:-5])
    with Journal.open(tmp_path / "run") as journal:
        assert journal.entries == ENTRIES[:-1]
        journal.append([ENTRIES[-1]])
    assert file.read_bytes() == lines_of(ENTRIES)


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\0",
        b"[]",
        b'{"entry":"other"}',
        b'{"entry":"start","player_id":"p-1","balance":true}',
        b'{"entry":"start","player_id":"p-1","balance":1.5}',
        b'{"entry":"start","player_id":"p-1"}',
        b'{"entry":"outcome","n":1,"outcome":"perhaps","reason":"","status":"","http_status":200}',
        b'{"entry":"request","n":2}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(line: bytes, tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    good = lines_of(ENTRIES[:2])
    file.write_bytes(good + line + b"\n" + lines_of(ENTRIES[2:]))
    with Journal.open(tmp_path / "run") as journal:
        assert journal.entries == ENTRIES
        [sentence] = journal.damage
    assert "is damaged in line 3: " in sentence


def test_a_damaged_first_line_is_named_and_nothing_is_cleaned(tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    file.write_bytes(b"\0\n" + lines_of(ENTRIES[1:]))
    with pytest.raises(RunRefusedError, match=r"journal\.ndjson is damaged in line 1: .*restore the file"):
        Journal.open(tmp_path / "run")


def test_a_sending_never_has_the_number_of_one_whose_line_is_damaged(tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    outcome = OutcomeEntry(n=7, outcome=Outcome.REFUSED, reason="", status="", http_status=409)
    file.write_bytes(file.read_bytes() + b"\0\n" + lines_of([outcome]))
    with Journal.open(tmp_path / "run") as journal:
        assert journal.next_n() == 8


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    head = {**json.loads(lines_of([HEAD])), "version": 2, "new": 1}
    file.write_bytes(json.dumps(head).encode() + b"\n")
    with pytest.raises(RunRefusedError, match="line 1: its version is 2; this program reads 1"):
        Journal.open(tmp_path / "run")
    with pytest.raises(EntryError):
        read_entries(file.read_bytes())


def test_a_journal_without_a_first_line_says_that_nothing_was_sent(tmp_path: Path) -> None:
    file = written(tmp_path / "run")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunRefusedError, match="nothing was sent"):
        Journal.open(tmp_path / "run")


def test_only_its_owner_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        file = written(tmp_path / "reports" / "run")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_one_process_at_a_time_has_it_and_its_url(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", HEAD):
        with pytest.raises(RunRefusedError, match="run run is in use by another process"):
            Journal.open(tmp_path / "run")
        with pytest.raises(RunRefusedError, match=r"another run plays against http://127\.0\.0\.1:1/"):
            Journal.create(tmp_path / "other", HEAD)
        with pytest.raises(RunRefusedError, match=r"another run plays against http://localhost:1/"):
            Journal.create(tmp_path / "another", replace(HEAD, url="http://localhost:1/"))
    Journal.open(tmp_path / "run").close()
    with pytest.raises(RunRefusedError, match="every run needs a folder of its own"):
        Journal.create(tmp_path / "run", HEAD)


def test_a_full_disk_leaves_no_half_line_and_the_request_unsent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, octets: bytes) -> int:
        if len(octets) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, octets[: len(octets) // 2])

    with Journal.create(tmp_path / "run", HEAD) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(RunRefusedError, match="No space left on device; nothing more was sent"):
                journal.append([ENTRIES[2]])
        assert journal.entries == [HEAD]
        journal.append([ENTRIES[2]])
    with Journal.open(tmp_path / "run") as journal:
        assert journal.entries == [HEAD, ENTRIES[2]]
        assert journal.next_n() == 2
