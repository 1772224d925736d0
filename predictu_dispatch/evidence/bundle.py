"""Writes a bundle: everything about one bet, with proofs, in one ZIP (FORMAT.md, "Bundles").

The same rows give the same bytes. One attempt at a time is in memory. All rows are read in one
snapshot.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias
from uuid import UUID

from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.bundle_texts import (
    MAY_NAME_PLAYER,
    NAMES_PLAYER,
    NOT_RECORDED,
    README,
    STILL_VALID,
)
from predictu_dispatch.evidence.player import Player
from predictu_dispatch.evidence.proofs import NotProvableError
from predictu_dispatch.evidence.sealed_entries import SealedEntry, attempt_entry, other_entries
from predictu_dispatch.evidence.stored_zip import StoredZip

FORMAT: Final = "predictu-dispatch bundle"
VERSION: Final = 1
READABLE_AFTER_S: Final = 60.0
"""So long after its exp a token is no credential, even if clocks differ."""
_UUID_OR_TIME: Final = re.compile(
    rb"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])|\b\d{4}-\d\d-\d\dT[\d:.]+Z"
)
Row: TypeAlias = Any
Story: TypeAlias = Callable[["Facts"], bytes]


class NoBundleError(Exception):
    """No bundle can be made; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The rows of a bet, without bodies, for its story."""

    bet: Row
    money: Row
    callbacks: Sequence[Row]
    attempts: Sequence[Row]
    interventions: Sequence[Row]
    player: Player | None
    """Set if nothing may name the player."""


@dataclass(slots=True)
class Summary:
    """Figures about a bundle."""

    bytes: int = 0
    files: int = 0
    attempts: int = 0
    unfinished: int = 0
    """Callbacks that are not final yet."""
    unsealed: list[str] = field(default_factory=list)
    """Attempts, interventions and keys that are not sealed yet."""
    uncosigned: int = 0
    young_tokens: int = 0
    withheld: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which bundle is written."""

    operator_id: str
    bet_id: str
    is_without_player: bool
    policy: bytes
    """The log's policy; empty if it is not known."""
    made_by: str


async def write_bundle(reader: AuditReader, archive: StoredZip, request: Request, story: Story) -> Summary:
    """Write the bundle of a bet that exists. Raises NoBundleError, NotProvableError."""
    async with reader.one_snapshot():
        key = (request.operator_id, request.bet_id)
        [bet], [money] = await reader.fetch("show_bet", *key), await reader.fetch("show_money", *key)
        facts = Facts(
            bet=bet,
            money=money,
            callbacks=await reader.fetch("dispute_callbacks", *key),
            attempts=await reader.fetch("dispute_attempts", *key),
            interventions=await reader.fetch("dispute_interventions", *key),
            player=Player(bet["player_id"]) if request.is_without_player else None,
        )
        return await _Writer(reader, archive, request, facts).write(story)


class _Writer:
    def __init__(self, reader: AuditReader, archive: StoredZip, request: Request, facts: Facts) -> None:
        self._reader = reader
        self._archive = archive
        self._request = request
        self._facts = facts
        self._summary = Summary(
            attempts=len(facts.attempts), unfinished=sum(row["finished_at"] is None for row in facts.callbacks)
        )
        self._folders: dict[str, list[dict[str, object]]] = {"attempts": [], "interventions": [], "keys": []}

    async def write(self, story: Story) -> Summary:
        [log] = await self._reader.fetch("audit_logs", self._request.operator_id)
        self._add("README.txt", README.encode())
        for row in sorted(self._facts.attempts, key=folder_of):
            await self._attempt(row)
        keys = await self._keys()
        entries = await self._other_entries(log, keys)
        for row in sorted(self._facts.interventions, key=lambda row: str(row["intervention_id"])):
            self._intervention(row, entries[row["intervention_id"]])
        for row in keys:
            self._key(row, entries)
        if self._request.policy:
            self._add("policy.txt", self._request.policy)
        start = entries[log["start_id"]]
        if start.proof is None:
            raise NoBundleError("the log has not begun yet: nothing is sealed; run it again in a few seconds")
        self._add_all("start", start.files("entry"))
        self._add("story.txt", story(self._facts))
        self._add("bundle.json", self._manifest(log))
        self._summary.files = len(self._archive.hashes)
        self._summary.bytes = self._archive.close()
        return self._summary

    async def _attempt(self, row: Row) -> None:
        operator_id = self._request.operator_id
        name = f"attempt {row['attempt']} of {row['method']} {row['request_id']}"
        try:
            entry = await attempt_entry(self._reader, operator_id, row["report_id"], row["started_at"])
        except NotProvableError as error:
            raise NotProvableError(f"{name}: {error}") from None
        [content] = await self._reader.fetch("dispute_attempt", operator_id, row["report_id"], row["started_at"])
        found = {
            "error.txt": _bytes(content["error"]),
            "request.body": _bytes(content["request_body"]),
            "request.headers.json": _bytes(content["request_headers"]),
            "response.body": content["response_body"],
            "response.headers.json": _bytes(content["response_headers"]),
        }
        files, withheld = self._parted(found, always=("request.body",))
        if row["token_sha256"] is not None:
            token = await self._token(row, content)
            if isinstance(token, bytes):
                files["token.jwt"] = token
            else:
                withheld["token.jwt"] = token
        self._put(folder_of(row), entry, (files, withheld), name)

    async def _token(self, row: Row, content: Row) -> bytes | str:
        """The token, or why it is left out."""
        # token_of() refuses the same, and would end the transaction.
        expires_at_s = _expiry_s(content["request_headers"])
        if expires_at_s is None:
            return NOT_RECORDED
        if content["read_at"].timestamp() < expires_at_s + READABLE_AFTER_S:
            self._summary.young_tokens += 1
            return STILL_VALID
        key = (self._request.operator_id, row["request_id"], row["attempt"], row["report_id"])
        [found] = await self._reader.fetch("dispute_token", *key)
        token: bytes = found["token"].encode()
        return token if sha256(token).digest() == row["token_sha256"] else NOT_RECORDED

    async def _keys(self) -> Sequence[Row]:
        kids = {row["key_id"] for row in self._facts.attempts if row["token_sha256"] is not None}
        rows: Sequence[Row] = await self._reader.fetch("dispute_keys", self._request.operator_id, sorted(kids))
        return rows

    async def _other_entries(self, log: Row, keys: Iterable[Row]) -> Mapping[UUID, SealedEntry]:
        kinds = {log["start_id"]: "start"}
        kinds |= {row["intervention_id"]: "intervention" for row in self._facts.interventions}
        for row in keys:
            kinds |= {row[name]: "key" for name in ("first_seen_id", "retired_id") if row[name] is not None}
        return await other_entries(self._reader, self._request.operator_id, kinds)

    def _intervention(self, row: Row, entry: SealedEntry) -> None:
        found = {f"{name}.json": _bytes(row[name]) for name in ("after", "before")}
        parted = self._parted({**found, "reason.txt": _bytes(row["reason"])})
        name = f"intervention {row['action']} of {row['intervention_id']}"
        self._put(f"interventions/{row['intervention_id']}", entry, parted, name)

    def _key(self, row: Row, entries: Mapping[UUID, SealedEntry]) -> None:
        path = f"keys/{row['kid']}"
        names = {name: row[f"{name}_id"] for name in ("first_seen", "retired") if row[f"{name}_id"] is not None}
        files = {"jwk.json": row["public_jwk"].encode()}
        for name, entry_id in names.items():
            files |= entries[entry_id].files(name)
            self._note_unsealed(entries[entry_id], f"key {row['kid']}")
        sealed = [name for name, entry_id in names.items() if entries[entry_id].proof is not None]
        self._add_all(path, files)
        self._folders["keys"].append({"folder": path, "entries": list(names), "sealed": sealed, "withheld": {}})

    def _put(self, path: str, entry: SealedEntry, parted: tuple[dict[str, bytes], dict[str, str]], name: str) -> None:
        files, withheld = parted
        self._note_unsealed(entry, name)
        self._summary.withheld += sum(why in (NAMES_PLAYER, MAY_NAME_PLAYER) for why in withheld.values())
        self._add_all(path, {**files, **entry.files("entry")})
        sealed = [] if entry.proof is None else ["entry"]
        kind = path.partition("/")[0]
        self._folders[kind].append({"folder": path, "entries": ["entry"], "sealed": sealed, "withheld": withheld})

    def _note_unsealed(self, entry: SealedEntry, name: str) -> None:
        if entry.proof is None:
            self._summary.unsealed.append(name)
        elif not entry.is_cosigned:
            self._summary.uncosigned += 1

    def _parted(
        self, contents: Mapping[str, bytes | None], always: Sequence[str] = ()
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        """Split the files into those to include and those to withhold, each with its reason."""
        player = self._facts.player
        present = {name: content for name, content in contents.items() if content is not None}
        if player is None:
            return present, {}
        named = {name: NAMES_PLAYER for name, content in present.items() if player.is_named_in(content)}
        withheld = {name: MAY_NAME_PLAYER for name in always if name in present} | named
        return {name: content for name, content in present.items() if name not in withheld}, withheld

    def _add_all(self, path: str, files: Mapping[str, bytes]) -> None:
        for name in sorted(files):
            self._add(f"{path}/{name}", files[name])

    def _add(self, name: str, content: bytes) -> None:
        player = self._facts.player
        if player is not None and (player.is_searched_everywhere or name == "story.txt"):
            searched = content if player.is_searched_everywhere else self._without_ids_and_times(content)
            if player.is_named_in(searched) or player.is_named_in(name.encode()):
                raise NoBundleError(f"{name} names the player, and it cannot be left out")
        self._archive.add(name, content)

    def _without_ids_and_times(self, story: bytes) -> bytes:
        """The story without key ids, UUIDs and times: a short player id is in them by chance."""
        for key_id in {row["key_id"] for row in self._facts.attempts if row["key_id"]}:
            story = story.replace(key_id.encode(), b" ")
        return _UUID_OR_TIME.sub(b" ", story)

    def _manifest(self, log: Row) -> bytes:
        request = self._request
        value = {
            "attempts": self._folders["attempts"],
            "bet_id": request.bet_id,
            "files": dict(self._archive.hashes),
            "format": FORMAT,
            "interventions": self._folders["interventions"],
            "keys": self._folders["keys"],
            "made_by": request.made_by,
            "operator_id": request.operator_id,
            "origin": log["origin"],
            "start": {"folder": "start", "entries": ["entry"], "sealed": ["entry"], "withheld": {}},
            "version": VERSION,
            "without_player": request.is_without_player,
        }
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def folder_of(row: Row) -> str:
    """The folder of an attempt."""
    late = f"_late_{row['report_id']}" if row["verdict"] == "late" else ""
    return f"attempts/{row['method']}_{row['request_id']}_{row['attempt']:04}{late}"


def _expiry_s(request_headers: str) -> float | None:
    """The exp of the token in these headers, in Unix time; None if they have no such token."""
    authorization = json.loads(request_headers).get("Authorization", "")
    matched = re.fullmatch(r"Bearer [\w-]+\.([\w-]+)\.\[signature withheld\]", authorization, re.ASCII)
    if matched is None:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(matched[1] + "=" * (-len(matched[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, TypeError, KeyError):
        return None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
