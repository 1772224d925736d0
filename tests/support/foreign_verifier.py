"""Checks our logs with Go's golang.org/x/mod/sumdb: tests/foreign_verifier/main.go.

    claims = [checkpoint(note, vkey), inclusion(note, vkey, 7, leaf_hash, proof)]
    assert foreign_verifier().verdicts(claims) == [ACCEPTED, ACCEPTED]

A test that calls foreign_verifier() is skipped, and says what is missing, if Go or the package is.
"""

import atexit
import base64
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

ACCEPTED: Final = "accepted"
_SOURCE = Path(__file__).parents[1] / "foreign_verifier" / "main.go"
_GOPATH = Path("/usr/share/gocode")
_PACKAGES = [_GOPATH / "src/golang.org/x/mod/sumdb" / name for name in ("note", "tlog")]

Claim = dict[str, Any]


def checkpoint(note: str, vkey: str, *, witnesses: Sequence[str] = ()) -> Claim:
    """The log with this key signed the checkpoint, and each of these witnesses cosigned it."""
    return {"kind": "checkpoint", "note": note, "vkey": vkey, "witnesses": list(witnesses)}


def signed_note(note: str, vkey: str) -> Claim:
    """The owner of this key signed the note, whatever its text says."""
    return {"kind": "note", "note": note, "vkey": vkey}


def inclusion(note: str, vkey: str, index: int, leaf_hash: bytes, proof: Iterable[bytes]) -> Claim:
    """The leaf is at this index of the log."""
    claim = {"kind": "inclusion", "note": note, "vkey": vkey, "index": index}
    return {**claim, "leaf_hash": _base64(leaf_hash), "proof": list(map(_base64, proof))}


def entry_inclusion(note: str, vkey: str, index: int, entry: bytes, proof: Iterable[bytes]) -> Claim:
    """The entry is at this index of the log; Go hashes it."""
    return {**inclusion(note, vkey, index, b"", proof), "entry": _base64(entry)}


def consistency(old_note: str, note: str, vkey: str, proof: Iterable[bytes]) -> Claim:
    """The log of `note` begins with that of `old_note`, which has one leaf or more."""
    claim = {"kind": "consistency", "old_note": old_note, "note": note, "vkey": vkey}
    return {**claim, "proof": list(map(_base64, proof))}


def tree(folder: Path, vkey: str, *, witnesses: Sequence[str] = (), left_out: int = 0) -> Claim:
    """The static log in this folder is whole: its checkpoint, every tile, every bundle of entries.

    Except `left_out` bundles.
    """
    claim = {"kind": "tree", "folder": str(folder), "vkey": vkey, "witnesses": list(witnesses)}
    return {**claim, "left_out": left_out}


@dataclass(frozen=True, slots=True)
class ForeignVerifier:
    """The compiled program."""

    program: Path

    def verdicts(self, claims: Iterable[Claim]) -> list[str]:
        """Return ACCEPTED or `refused: …` for each claim."""
        lines = "".join(f"{json.dumps(claim)}\n" for claim in claims)
        done = subprocess.run([self.program], input=lines, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        verdicts = done.stdout.splitlines()
        assert len(verdicts) == lines.count("\n"), done.stdout
        return verdicts

    def accepts(self, claim: Claim) -> bool:
        return self.verdicts([claim]) == [ACCEPTED]


def missing_for_go() -> str:
    """What foreign_verifier() lacks and how to install it, or "" if nothing is missing."""
    missing = ([] if shutil.which("go") else ["go"]) + [str(folder) for folder in _PACKAGES if not folder.is_dir()]
    return f"{', '.join(missing)} missing; on Debian: apt install golang-go golang-golang-x-mod-dev" if missing else ""


@functools.cache
def foreign_verifier() -> ForeignVerifier:
    """Compile the program, once for each test process."""
    if missing := missing_for_go():
        pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="foreign-verifier-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    variables = {"GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOFLAGS": "", "GOCACHE": str(folder / "cache")}
    build = ["go", "build", "-o", str(folder / "verifier"), str(_SOURCE)]
    built = subprocess.run(
        build, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stderr
    return ForeignVerifier(folder / "verifier")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
