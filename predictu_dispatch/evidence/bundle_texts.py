"""The texts in a bundle: its README.txt, and why a file was left out."""

from __future__ import annotations

from typing import Final

NAMES_PLAYER: Final = "it names the player"
MAY_NAME_PLAYER: Final = "it may name the player"
STILL_VALID: Final = "the token may still be valid, or was until less than a minute ago"
NOT_RECORDED: Final = "the audit has another token than this record"
HIDDEN: Final = "[left out: it names the player]"

README: Final = """\
What was sent about one bet, and what came back
================================================

story.txt describes the bet in plain words. The other files are the evidence:

  attempts/METHOD_REQUEST_NUMBER/  one try to send a callback
    entry.json                     its record in the log: hashes of the rest
    entry.tlog-proof               the proof that the log has the record
    entry.cosigned.tlog-proof      the same proof with the first checkpoint that
                                   a witness cosigned
    request.body                   the bytes that were sent
    request.headers.json           the headers, without the token's signature
    token.jwt                      the token: our signature on the bytes
    response.body                  the bytes that came back, or their beginning
                                   if it repeats an earlier answer
    response.headers.json          the headers that came back
    error.txt                      what went wrong
  interventions/ID/                a manual action of our staff
  keys/KID/                        a public key that signed, and when the log
                                   first had it
  start/                           the first entry of the log
  policy.txt                       the keys of the log and of its witnesses, if
                                   they were known
  bundle.json                      the SHA-256 of each file, and what was left
                                   out and why

How to verify it without us
---------------------------
You need Python 3.11 with PyNaCl and cryptography, and the folder `verifier` of
our software. Use a copy that you made earlier, get it from a third party, or
write your own: the file FORMAT.md specifies every byte.

    python verifier bundle.zip --policy policy.txt

--policy names whom you trust: the key of your log, which you got from us
before the dispute, and the keys of witnesses. Without it the verifier uses the
policy.txt in the bundle, and then nothing proves that this key is ours.

By hand: the SHA-256 of request.body is the claim `digest` of token.jwt. Any JWT
library verifies token.jwt with keys/KID/jwk.json; ignore that it has expired.
Any verifier of c2sp.org/tlog-proof verifies entry.tlog-proof for the bytes of
entry.json.

What it proves
--------------
- We signed the bytes of request.body, for this operator, this method and this
  request.
- The records are in our log, and have not been changed since a witness saw the
  log.
- The records were made from request.*, response.*, token.jwt and error.txt.
- The log had the keys before they signed.

What it cannot prove
--------------------
- What the operator received, answered and booked. The records say what we sent
  and received.
- That our clocks were right.
- That nothing else exists about this bet. Only the whole log shows that.
- When a record came into the log, if no witness has cosigned it.
- What happened to a record before the log began.
- That story.txt is right. It is our reading of the records.

A bundle without the player lacks the bodies and every other file that names the
player. Their hashes stay, and so do our signatures on them. A reader who knows
or guesses a whole body can confirm it by its hash.
"""
