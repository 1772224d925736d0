"""bundle.json: what is in the bundle, the hash of each file, and what was left out and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from .archive import MANIFEST, Archive, RefusedError
from .canonical import as_object, parse_object

FORMAT: Final = "predictu-dispatch bundle"
VERSION: Final = 1
_MANIFEST_BYTES_MAX: Final = 1 << 24
_TOP: Final = ("README.txt", "story.txt")
POLICY: Final = "policy.txt"

ATTEMPT_FILES: Final = {
    "error.txt": "error_sha256",
    "request.body": "request_body_sha256",
    "request.headers.json": "request_headers_sha256",
    "response.body": "response_body_stored_sha256",
    "response.headers.json": "response_headers_sha256",
    "token.jwt": "token_sha256",
}
"""The files of an attempt, and the field of its entry that has the hash of each."""
INTERVENTION_FILES: Final = {
    "after.json": "after_sha256",
    "before.json": "before_sha256",
    "reason.txt": "reason_sha256",
}
KEY_FILES: Final = {"jwk.json": "public_jwk_sha256"}
_FILES_OF: Final = {"attempts": ATTEMPT_FILES, "interventions": INTERVENTION_FILES, "keys": KEY_FILES, "start": {}}
_KEYS: Final = {
    *("attempts", "bet_id", "files", "format", "interventions", "keys", "made_by", "operator_id", "origin", "start"),
    *("version", "without_player"),
}


@dataclass(frozen=True, slots=True)
class Folder:
    """What belongs together: an attempt, an intervention, a key, or the start of the log."""

    path: str
    sealed: tuple[str, ...]
    """Its entries that have a proof: of a key `first_seen` and `retired`; else `entry`."""
    entries: tuple[str, ...]
    withheld: dict[str, str]
    """The files that are left out, and why."""

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of bundle.json."""

    operator_id: str
    bet_id: str
    origin: str
    made_by: str
    is_without_player: bool
    attempts: tuple[Folder, ...]
    interventions: tuple[Folder, ...]
    keys: tuple[Folder, ...]
    start: Folder


def read_manifest(archive: Archive) -> Manifest:
    """Read bundle.json and compare it with the files. Raises RefusedError."""
    try:
        value = parse_object(archive.read(MANIFEST, _MANIFEST_BYTES_MAX))
        manifest, files = _manifest(value)
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(MANIFEST, str(error) or "malformed") from None
    _check_files(archive, files)
    _check_known(archive, manifest)
    return manifest


def _manifest(value: dict[str, Any]) -> tuple[Manifest, dict[str, str]]:
    if value.get("format") != FORMAT or value.get("version") != VERSION:
        raise ValueError(f"this verifier knows version {VERSION} of the format {FORMAT!r} only")
    if wrong := _KEYS ^ value.keys():
        raise ValueError(f"a key is missing or unknown: {min(wrong)[:80]}")
    texts = {name: value[name] for name in ("operator_id", "bet_id", "origin", "made_by")}
    are_texts = all(isinstance(text, str) and text for text in texts.values())
    if not are_texts or type(value["without_player"]) is not bool:
        raise ValueError("a value is of another kind")
    if not value["origin"].endswith(f"/{value['operator_id']}"):
        raise ValueError("the log's name does not end in the operator's id")
    groups = [tuple(_folder(name, each) for each in value[name]) for name in ("attempts", "interventions", "keys")]
    files = value["files"]
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError("files is not an object of hashes")
    start = _folder("start", value["start"])
    if start.path != "start":
        raise ValueError("the start's folder is not start")
    attempts, interventions, keys = groups
    return Manifest(
        **texts,
        is_without_player=value["without_player"],
        attempts=attempts,
        interventions=interventions,
        keys=keys,
        start=start,
    ), files


def _folder(kind: str, element: object) -> Folder:
    value: dict[str, Any] = as_object(element, f"an element of {kind}")
    if value.keys() != {"entries", "folder", "sealed", "withheld"}:
        raise ValueError(f"an element of {kind} has other keys")
    path, entries, sealed, withheld = value["folder"], value["entries"], value["sealed"], value["withheld"]
    names = ("first_seen", "retired") if kind == "keys" else ("entry",)
    lists_fit = list(entries) in ([names[0]], list(names)) and set(sealed) <= set(entries)
    withheld_fits = isinstance(withheld, dict) and all(isinstance(why, str) for why in withheld.values())
    if not (isinstance(path, str) and re.fullmatch(rf"{kind}(/[A-Za-z0-9_-]+)?", path) and lists_fit and withheld_fits):
        raise ValueError(f"an element of {kind} is malformed")
    if unknown := withheld.keys() - _FILES_OF[kind].keys():
        raise ValueError(f"{path}: {min(unknown)[:80]} cannot be left out")
    return Folder(path, tuple(sealed), tuple(entries), withheld)


def _check_files(archive: Archive, files: dict[str, str]) -> None:
    found = {name: member.sha256 for name, member in archive.members.items() if name != MANIFEST}
    for name in sorted(files.keys() | found.keys()):
        if name not in files:
            raise RefusedError(name, f"{MANIFEST} does not list it")
        if name not in found:
            raise RefusedError(name, f"{MANIFEST} lists it, and it is missing")
        if files[name] != found[name]:
            raise RefusedError(name, f"it does not have the SHA-256 that {MANIFEST} lists")


def _check_known(archive: Archive, manifest: Manifest) -> None:
    """Refuse a file that belongs to nothing, and anything that is listed twice."""
    folders = [*manifest.attempts, *manifest.interventions, *manifest.keys, manifest.start]
    paths = [folder.path for folder in folders]
    if len(set(paths)) != len(paths):
        raise RefusedError(MANIFEST, "it lists a folder twice")
    needed, allowed = set(_TOP), {POLICY, MANIFEST}
    for folder in folders:
        needed |= {folder.file(f"{entry}.json") for entry in folder.entries}
        needed |= {folder.file(f"{entry}.tlog-proof") for entry in folder.sealed}
        allowed |= {folder.file(f"{entry}.cosigned.tlog-proof") for entry in folder.sealed}
        contents = _FILES_OF[folder.path.partition("/")[0]]
        allowed |= {folder.file(name) for name in contents if name not in folder.withheld}
    for name in sorted(needed - archive.members.keys()):
        raise RefusedError(name, "it is missing")
    for name in sorted(archive.members.keys() - needed - allowed):
        raise RefusedError(name, "no such file belongs in a bundle")
