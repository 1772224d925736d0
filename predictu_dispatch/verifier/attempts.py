"""The checks of one attempt: its record, the signature on its request, the answer, the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .archive import RefusedError
from .canonical import parse_json
from .entries import Entry, moment
from .keys import Keyring
from .manifest import ATTEMPT_FILES, Folder
from .records import Log, Place, Statement, UnprovedError, Verdict, first_cosignature
from .tokens import TOKEN_BYTES_MAX, Token, kid_of, open_token

LEEWAY_S: Final = 5
"""The allowed difference between the sender's clock and the database's."""
_BODY_BYTES_MAX: Final = 1 << 20
_ISSUER: Final = "predictu"
_REQUEST: Final = {name: field for name, field in ATTEMPT_FILES.items() if not name.startswith(("response", "error"))}
_ANSWER: Final = {name: field for name, field in ATTEMPT_FILES.items() if name not in _REQUEST}


@dataclass(frozen=True, slots=True)
class Bundle:
    """What all attempts of a bundle share."""

    log: Log
    keyring: Keyring
    bet_id: str
    bodies: dict[tuple[str, int, str], str | None] = field(default_factory=dict)
    """The SHA-256 of each answer's body, by request_id, attempt and verdict."""


def check_attempt(bundle: Bundle, folder: Folder) -> Iterator[Statement]:
    """Yield the statements about an attempt."""
    entry = bundle.log.entry(folder, "entry", "attempt")
    name = f"{entry['method']}_{entry['request_id']}_{entry['attempt']:04}"
    allowed = (f"attempts/{name}", f"attempts/{name}_late_{entry['report_id']}")
    if folder.path != allowed[entry["verdict"] == "late"]:
        raise RefusedError(folder.file("entry.json"), f"the record belongs in the folder {allowed[0]}")
    state = _Attempt(bundle, folder, entry)
    yield from state.place()
    yield from state.files()
    yield from state.signature()
    yield from state.order()
    yield from state.time()
    yield Statement(Verdict.RECORD, _what_happened(entry), folder.path)


class _Attempt:
    def __init__(self, bundle: Bundle, folder: Folder, entry: Entry) -> None:
        self._folder, self._entry = folder, entry
        self._log, self._keyring, self._bet_id = bundle.log, bundle.keyring, bundle.bet_id
        self._bodies = bundle.bodies
        self._place: Place | None = None

    def place(self) -> Iterator[Statement]:
        """The record is in the log."""
        if "entry" not in self._folder.sealed:
            yield self._say(Verdict.RECORD, "The record is not in the log yet; make the bundle again later.")
            return
        yield from self._proved("The record (entry.json) is in the log.", self._find_place)

    def files(self) -> Iterator[Statement]:
        """The files are those of the record."""
        yield from self._proved("The request in this folder is the one of the record.", self._check_request)
        yield from self._proved("The answer in this folder is the one of the record.", self._check_answer)
        for name, why in sorted(self._folder.withheld.items()):
            yield self._say(Verdict.RECORD, f"{name} is left out: {why}. The record has its SHA-256.")

    def signature(self) -> Iterator[Statement]:
        """The request was signed, by a key that the log had."""
        if self._entry["token_sha256"] is None:
            yield self._say(Verdict.RECORD, "No token was kept: nothing was sent, or it was sent by an older release.")
        elif "token.jwt" not in self._folder.withheld:
            kid = self._entry["key_id"]
            yield from self._proved(f"The request body was signed with the key {kid}.", self._check_signature)
            known = self._keyring.known.get(kid)
            if known is not None and known.place is None:
                yield self._say(
                    Verdict.RECORD, f"The key {kid}, in use since {known.first_seen_at}, is not in the log yet."
                )
            else:
                yield from self._proved(f"The log had the key {kid} when the token was issued.", self._check_key)

    def order(self) -> Iterator[Statement]:
        """The signed body is about the bet."""
        if "request.body" in self._folder.withheld or self._entry["request_body_sha256"] is None:
            text = f"The attempt is about the bet {self._bet_id}; its body, which would show it, is not here."
            yield self._say(Verdict.RECORD, text)
            return
        claim = f"The request body is {self._entry['method']} for the bet {self._bet_id}."
        yield from self._proved(claim, self._check_body)

    def time(self) -> Iterator[Statement]:
        """Since when the record cannot have been changed."""
        if self._place is None:
            return
        yield from self._proved("The record has not changed since a witness saw the log.", self._check_time)

    def _find_place(self) -> str:
        self._place = place = self._log.place(self._folder, "entry", self._entry)
        size, origin = place.checkpoint.size, place.checkpoint.origin
        return f"The record (entry.json) is entry {place.index} of the log {origin}, of size {size}."

    def _check_request(self) -> str:
        named = self._log.check_files(self._folder, self._entry, _REQUEST)
        return f"The record has the request's hashes: {', '.join(named) or 'nothing of it is here'}."

    def _check_answer(self) -> str:
        entry = self._entry
        named = self._log.check_files(self._folder, entry, _ANSWER)
        whole, repeats = entry["response_body_sha256"], entry["response_body_repeats"]
        self._bodies[entry["request_id"], entry["attempt"], entry["verdict"]] = whole
        if entry["response_status"] is None:
            return f"The record has no complete answer{': ' if named else ''}{', '.join(named)}."
        text = f"The answer with HTTP {entry['response_status']} has the hashes of the record{self._where()}"
        if repeats is None:
            if whole != entry["response_body_stored_sha256"]:
                raise ValueError("the record has two hashes of one body")
            return f"{text}: {', '.join(named)}."
        earlier = [self._bodies.get((entry["request_id"], repeats, verdict)) for verdict in ("retry", "late")]
        if any(earlier) and whole not in earlier:
            raise ValueError(f"the answer is not the same as that of attempt {repeats}")
        return f"{text}; response.body is its beginning, and attempt {repeats} has the whole of it: {', '.join(named)}."

    def _where(self) -> str:
        return f", entry {self._place.index} of size {self._place.checkpoint.size}" if self._place else ""

    def _check_signature(self) -> str:
        token = self._token()
        self._compare_claims(token)
        body = "the body in request.body" if self._is_there("request.body") else "a body that is left out"
        issued, ends = _utc(token.iat), _utc(token.exp)
        return f"The key {token.kid} signed {body}: token.jwt, issued at {issued}, valid until {ends}."

    def _token(self) -> Token:
        path = self._folder.file("token.jwt")
        content = self._log.archive.read(path, TOKEN_BYTES_MAX)
        if self._log.archive.members[path].sha256 != self._entry["token_sha256"]:
            raise ValueError("token.jwt is not the token of this record")
        kid = kid_of(content)
        if kid != self._entry["key_id"]:
            raise ValueError(f"the token names the key {kid}, and the record {self._entry['key_id']}")
        if kid not in self._keyring.known:
            raise ValueError(self._keyring.faults.get(kid, "the bundle has no such key"))
        return open_token(content, self._keyring.known[kid].public_key)

    def _compare_claims(self, token: Token) -> None:
        entry = self._entry
        request_id, attempt = entry["request_id"], entry["attempt"]
        expected: dict[str, tuple[object, ...]] = {
            "iss": (_ISSUER,),
            "sub": (entry["operator_id"],),
            "method": (entry["method"],),
            "jti": (request_id, f"{request_id}:{attempt}"),
            "digest": (entry["request_body_sha256"],),
        }
        for name, values in expected.items():
            if token.claims[name] not in values:
                raise ValueError(f"the token's {name} is {str(token.claims[name])[:80]}, and the record's {values[0]}")
        if token.exp <= token.iat:
            raise ValueError("the token ends before it begins")

    def _check_key(self) -> str:
        token = self._token()
        known = self._keyring.known[token.kid]
        issued, leeway = datetime.fromtimestamp(token.iat, UTC), timedelta(seconds=LEEWAY_S)
        if moment(known.first_seen_at) > issued + leeway:
            raise ValueError(f"the token was issued at {_utc(token.iat)}, and the key came at {known.first_seen_at}")
        if known.retired_at is not None and moment(known.retired_at) < issued - leeway:
            raise ValueError(f"the token was issued at {_utc(token.iat)}, after the key was retired")
        close = "" if moment(known.first_seen_at) <= issued else f" (within {LEEWAY_S} s, as clocks differ)"
        text = f"The log has had the key {token.kid} since {known.first_seen_at}, before this token was issued{close}"
        if self._place is not None and known.place is not None and known.place.index < self._place.index:
            text += f"; its entry {known.place.index} precedes this record's"
        return f"{text}."

    def _check_body(self) -> str:
        path = self._folder.file("request.body")
        if self._log.archive.members[path].size > _BODY_BYTES_MAX:
            raise UnprovedError("The request body is too large to be read here; its hash is verified.")
        content = self._log.archive.read(path, _BODY_BYTES_MAX)
        body: Any = parse_json(content, floats=True)
        entry = self._entry
        named = {name: body.get(name) for name in ("method", "request_id", "operator_id")} if _is_object(body) else {}
        params: Any = body.get("params") if _is_object(body) else None
        if named != {name: entry[name] for name in ("method", "request_id", "operator_id")}:
            raise ValueError("the body's method, request_id and operator_id are not those of the record")
        if not _is_object(params) or params.get("bet_id") != self._bet_id:
            raise ValueError("the body is about another bet")
        amount = f", amount {params['amount']} {params.get('currency', '')}" if "amount" in params else ""
        return f"The request body is {entry['method']} {entry['request_id']} for the bet {self._bet_id}{amount}."

    def _check_time(self) -> str:
        assert self._place is not None  # noqa: S101 - time() looked
        place = self._log.cosigned(self._folder, "entry", self._entry, self._place)
        seen = first_cosignature(place.checkpoint)
        if seen is None:
            raise UnprovedError("No known witness cosigned the log, so nothing proves when the record came into it.")
        key, time_s = seen
        size = place.checkpoint.size
        return f"The record has not changed since {_utc(time_s)}: {key.name} cosigned the log of size {size} then."

    def _is_there(self, name: str) -> bool:
        return self._folder.file(name) in self._log.archive.members

    def _proved(self, claim: str, check: Callable[[], str]) -> Iterator[Statement]:
        try:
            yield self._say(Verdict.PROVED, check())
        except UnprovedError as error:
            yield self._say(Verdict.RECORD, str(error))
        except ValueError as error:
            yield Statement(Verdict.CONTRADICTED, claim, self._folder.path, str(error))

    def _say(self, verdict: Verdict, text: str) -> Statement:
        return Statement(verdict, text, self._folder.path)


def _what_happened(entry: Entry) -> str:
    sent = f"Sent to {entry['url']}" if entry["url"] else "Nothing was sent"
    peer = f" at {entry['peer']}" if entry["peer"] else ""
    certificate = entry["peer_certificate_sha256"]
    whose = f", whose certificate has the SHA-256 {certificate}" if certificate else ""
    answer = f"answered with HTTP {entry['response_status']}" if entry["response_status"] else entry["evidence"]
    reason = f" ({entry['reason']})" if entry["reason"] else ""
    times = f"from {entry['started_at']} to {entry['finished_at']}"
    return f"{sent}{peer}{whose}, {times}: {answer}, judged {entry['verdict']}{reason}."


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _utc(time_s: int) -> str:
    if time_s > 253_402_300_799:  # noqa: PLR2004 - the last second of the year 9999
        return f"the Unix time {time_s}"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
