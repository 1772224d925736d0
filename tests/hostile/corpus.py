"""The corpus of bad answers, and a server that sends the one that a request names."""

import json
from collections import Counter
from collections.abc import Callable

from tests.hostile.bodies import BODIES
from tests.hostile.entry import Entry, http
from tests.hostile.heads import CODES, FRAMING
from tests.hostile.lines import LINES
from tests.hostile.scripts import SCRIPTS
from tests.support.raw_server import Peer, Script

CORPUS: dict[str, Entry] = {entry.name: entry for entry in (*BODIES, *CODES, *FRAMING, *LINES, *SCRIPTS)}
assert len(CORPUS) == len(BODIES) + len(CODES) + len(FRAMING) + len(LINES) + len(SCRIPTS), "two entries of one name"

WELL = b'{"status":"OK","balance":7,"transaction_id":"well"}'
"""A correct answer; no entry of the corpus equals it."""


def entry_named_by(request: bytes) -> Entry | None:
    """The entry that the request's bet_id names after its first colon."""
    envelope = json.loads(request.partition(b"\r\n\r\n")[2])
    if envelope["method"] == "BET_ROLLBACK":
        # Rollbacks must succeed, or the test would never end.
        return None
    return CORPUS.get(envelope["params"].get("bet_id", "").partition(":")[2])


class EntryScript:
    """A script that answers every request with its entry.

    `tokens` collects the requests' tokens.
    """

    def __init__(self, choose: Callable[[bytes], Entry | None] = entry_named_by) -> None:
        self._choose = choose
        self.played: Counter[str] = Counter()
        self.tokens: set[str] = set()

    async def __call__(self, peer: Peer) -> None:
        goes_on = True
        while goes_on:
            request = await peer.request()
            self.tokens.add(request.partition(b"Authorization: Bearer ")[2].partition(b"\r\n")[0].decode())
            entry = self._choose(request)
            if entry is None:
                await peer.send(http(WELL))
            else:
                self.played[entry.name] += 1
                goes_on = await entry.answer(peer, request)


def first_then_well(entry: Entry) -> Script:
    """A script that answers the first request with `entry`, and all others correctly."""
    waiting = [entry]
    return EntryScript(lambda _request: waiting.pop() if waiting else None)
