"""Bad bodies in correct HTTP framing: status 200, correct length, connection kept alive."""

import gzip
from dataclasses import replace
from typing import Any

from predictu_dispatch.core.callback import Effect
from tests.hostile.entry import (
    BOMB,
    DELIVERED,
    NOTHING_TO_REVERSE,
    OK,
    PAGE,
    REFUSED,
    UNKNOWN_STATUS,
    UNKNOWN_STATUS_RETRIED,
    Entry,
    Expected,
    broken,
    http,
    no_answer,
    rejected,
    sends,
)

NOT_JSON, NOT_UTF8, NOT_OBJECT = no_answer("not_json"), no_answer("not_utf8"), no_answer("not_object")
NO_STATUS, RETRIED = no_answer("no_status"), (UNKNOWN_STATUS_RETRIED,)
DUPLICATE_KEYS = no_answer("duplicate_keys")
NOT_FOUND = (rejected("bet_not_found"), replace(rejected("bet_not_found"), effect=Effect.UNKNOWN))
"""The second for a BET_MAKE."""
CAP = 65_536
"""The default of max_response_bytes."""


def body(name: str, content: bytes, *expected: Expected, **more: Any) -> Entry:
    return sends(name, http(content), *expected, body=content, **more)


def with_balance(json: bytes, kept: int | None) -> Entry:
    """A success with this balance. It is always delivered.

    An invalid balance is an anomaly on the row.
    """
    content = b'{"status":"OK","balance":%s}' % json
    anomaly = None if kept is not None else "balance"
    return body(f"balance {json[:40].decode()}", content, DELIVERED, balance=kept, anomaly=anomaly)


def with_transaction(json: bytes, anomaly: str | None = None) -> Entry:
    content = b'{"status":"OK","balance":95000,"transaction_id":%s}' % json
    return body(f"transaction_id {json[:40].decode()}", content, DELIVERED, anomaly=anomaly)


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b'{"status":"OK","balance":95000,"deep":' + opening * depth + b"1" + closing * depth + b"}"


PADDED = OK[:-1] + b',"pad":"' + b"x" * (CAP - len(OK) - 9) + b'"}'
"""A body of exactly the maximum length."""

BODIES: tuple[Entry, ...] = (
    # No JSON
    body("empty", b"", NOT_JSON),
    body("an HTML page", PAGE, NOT_JSON),
    body("the bare word OK", b"OK", NOT_JSON),
    body("JSON cut in the middle, its length right", OK[:30], NOT_JSON),
    body("two documents", OK + OK, NOT_JSON),
    body("a document and a word", OK + b" done", NOT_JSON),
    body("single quotes", b"{'status':'OK'}", NOT_JSON),
    body("a trailing comma", b'{"status":"OK",}', NOT_JSON),
    body("an anti-hijacking prefix", b")]}',\n" + OK, NOT_JSON),
    body("a NUL behind the object", OK + b"\0", NOT_JSON),
    body("a raw NUL in a string", b'{"status":"OK","note":"a\0b"}', NOT_JSON),
    body("a raw newline in a string", b'{"status":"OK","note":"a\nb"}', NOT_JSON),
    body("NaN", b'{"status":"OK","balance":NaN}', NOT_JSON),
    body("Infinity", b'{"status":"OK","balance":Infinity}', NOT_JSON),
    body("a leading zero", b'{"status":"OK","balance":0095}', NOT_JSON),
    # RFC 8259 section 9 lets a parser limit the depth. Deeper bodies are not parsed, so they are no
    # answer.
    body("30,000 arrays deep", nested(b"[", b"]", 30_000), NOT_JSON),
    body("10,000 objects deep", nested(b'{"a":', b"}", 10_000), NOT_JSON),
    body("100,000 arrays deep", nested(b"[", b"]", 100_000), *broken("too_large")),
    body("30,000 brackets and no end", b"[" * 30_000, NOT_JSON),
    # Encodings
    body("a byte order mark", b"\xef\xbb\xbf" + OK, NOT_JSON),
    body("UTF-16", OK.decode().encode("utf-16"), NOT_UTF8),
    body("UTF-16 without a mark", OK.decode().encode("utf-16-le"), NOT_JSON),
    body("Latin-1", '{"status":"OK","name":"é"}'.encode("latin-1"), NOT_UTF8),
    body("a surrogate in UTF-8", b'{"status":"OK","name":"\xed\xa0\x80"}', NOT_UTF8),
    body("bytes without meaning", bytes(range(128, 256)) * 20, NOT_UTF8),
    body("compressed without being requested", gzip.compress(OK), NOT_UTF8),
    sends("40 MB, packed", http(BOMB * 40, b"Content-Encoding: gzip"), NOT_UTF8, body=BOMB * 40),
    sends("called packed, and plain", http(OK, b"Content-Encoding: gzip"), DELIVERED, body=OK),
    sends("called brotli, and garbage", http(b"\x8b\xff" * 50, b"Content-Encoding: br"), NOT_UTF8),
    # The wrong shape
    body("an array", b"[" + OK + b"]", NOT_OBJECT),
    body("a string", b'"OK"', NOT_OBJECT),
    body("null", b"null", NOT_OBJECT),
    body("an empty object", b"{}", NO_STATUS),
    body("the wrong case of the key", b'{"Status":"OK"}', NO_STATUS),
    body("the status one level down", b'{"data":{"status":"OK"}}', NO_STATUS),
    *(
        body(f"status is {value.decode()}", b'{"status":%s,"balance":95000}' % value, NO_STATUS)
        for value in (b"null", b"true", b"200", b"1.0", b'["OK"]', b'{"OK":1}')
    ),
    *(
        body(
            f"status is {value}",
            b'{"status":"%s","balance":95000}' % value.encode(),
            UNKNOWN_STATUS,
            for_rollback=RETRIED,
        )
        for value in ("", "ok", " OK", "OK ", "PENDING", "OK\\u0000", "\\ud800", "\\ud83d\\ude00", "\u041e\u041a")
    ),
    body("a status of 60,000 characters", b'{"status":"' + b"O" * 60_000 + b'"}', UNKNOWN_STATUS, for_rollback=RETRIED),
    body("status twice, both well", b'{"status":"OK","status":"OK"}', DUPLICATE_KEYS),
    body("status twice, the last one well", b'{"status":"FAILED","status":"OK"}', DUPLICATE_KEYS),
    body("status twice, the first one well", b'{"status":"OK","status":"FAILED"}', DUPLICATE_KEYS),
    body("status twice, once in escapes", b'{"st\\u0061tus":"FAILED","status":"OK"}', DUPLICATE_KEYS),
    body("a balance twice", b'{"status":"OK","balance":1,"balance":2}', DUPLICATE_KEYS),
    body("a key twice further down", b'{"status":"OK","more":[{"a":1,"a":2}]}', DUPLICATE_KEYS),
    # Numbers beyond all range
    *(with_balance(json, kept) for json, kept in ((b"-1", -1), (b"0", 0), (b"9223372036854775807", 2**63 - 1))),
    *(
        with_balance(json, None)
        for json in (
            b"1e400",
            b"9e99",
            b"1e-400",
            b"0.1",
            b"950.00",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"9" * 5_000,
            b"1e999999999999999999999",
            b'"95000"',
            b"true",
            b"[]",
            b"{}",
            b'"\\ud800\\u0000"',
        )
    ),
    body("balance null", b'{"status":"OK","balance":null}', DELIVERED, balance=None, anomaly="balance is missing"),
    *(with_transaction(json) for json in (b"123", b"null", b'"a\\u0000b"', b'"\\ud800"', b'"' + b"t" * 50_000 + b'"')),
    *(with_transaction(json, "transaction_id") for json in (b'""', b"true", b"1.5", b"[]", b"9" * 5_000)),
    body("a lone surrogate as a key", OK[:-1] + b',"\\ud800":1}', DELIVERED),
    body("30,000 elements", OK[:-1] + b',"list":[' + b"1," * 30_000 + b"1]}", DELIVERED),
    # Sizes
    body("exactly as long as allowed", PADDED, DELIVERED),
    body("one byte too long", PADDED + b" ", *broken("too_large")),
    # Correct answers in unusual forms
    body("a refusal", REFUSED, rejected("insufficient_funds")),
    body("nothing to reverse", b'{"status":"BET_NOT_FOUND"}', *NOT_FOUND, for_rollback=(NOTHING_TO_REVERSE,)),
    body("white space all around", b" \r\n\t" + OK + b"\n" * 1_000, DELIVERED),
    body("the status in escapes", b'{"\\u0073tatus":"\\u004f\\u004b","balance":95000}', DELIVERED),
)
