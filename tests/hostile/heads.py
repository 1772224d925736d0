"""Bad status lines, headers and framing."""

from typing import Any

from tests.hostile.entry import (
    DELIVERED,
    OK,
    PAGE,
    REFUSED,
    Entry,
    Expected,
    Then,
    broken,
    chunked,
    http,
    no_answer,
    rejected,
    sends,
)

BAD_HTTP = broken("bad_http")
CUT = broken("truncated", "reset")
"""After a RST the kernel may discard unread bytes, also the head."""
TOO_LONG = broken("bad_http", "too_large")
"""A head or trailers beyond all limits; a client may find invalid bytes in it first."""
BROKEN_BODY = broken("bad_http", "truncated")
"""Depends on whether the head was read before the fault in the body arrived."""
EITHER = (DELIVERED, *BAD_HTTP)
"""A client may accept or refuse this (RFC 9112 section 2.2); the answer is complete in both
cases."""
MISCONFIGURED = no_answer("misconfigured")
HIDDEN = http(b'{"status":"OK","balance":666,"transaction_id":"hidden"}')
"""An unsolicited answer. If it were read as the next answer, it would confirm a debit that was
never sent."""
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def coded(code: int, content: bytes, *expected: Expected, **more: Any) -> Entry:
    name = f"a {code} with {'nothing' if not content else 'a page' if content == PAGE else content.decode()[:40]}"
    return sends(name, http(content, status=b"HTTP/1.1 %d Reason" % code), *expected, body=content, **more)


def redirect(code: int, location: str) -> Entry:
    """A redirect with a body that says OK. Following it would send a second request."""
    wire = http(OK, b"Location: " + location.encode(), status=b"HTTP/1.1 %d Elsewhere" % code)
    return sends(f"a {code} to {location}", wire, MISCONFIGURED)


def length(name: str, value: bytes, *expected: Expected, colon: bytes = b": ", **more: Any) -> Entry:
    wire = HEAD + b"Content-Length" + colon + value + b"\r\n\r\n" + OK
    return sends(f"Content-Length {name}", wire, *expected, **more)


def chunks(name: str, content: bytes, *expected: Expected, **more: Any) -> Entry:
    return sends(f"chunks: {name}", CHUNKED + content, *expected, **more)


def head(name: str, lines: bytes, *expected: Expected, **more: Any) -> Entry:
    """Additional header lines before a correct answer."""
    return sends(name, HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(OK) + OK, *expected, **more)


def garbage(name: str, wire: bytes, *expected: Expected, **more: Any) -> Entry:
    return sends(name, wire, *(expected or BAD_HTTP), **{"then": Then.CLOSES, **more})


ONE_CHUNK = b"%x\r\n%s\r\n" % (len(OK), OK)

CODES: tuple[Entry, ...] = (
    *(redirect(code, "/elsewhere") for code in (301, 302, 303, 307, 308)),
    redirect(302, "http://169.254.169.254/latest/meta-data/"),
    redirect(302, "http://127.0.0.1:1/predictu"),
    redirect(307, "file:///etc/passwd"),
    redirect(308, "//[::1]:22/"),
    redirect(301, "\u00e9 not an address"),
    coded(300, OK, MISCONFIGURED),
    coded(399, OK, MISCONFIGURED),
    # These two have no body, whatever their length says (RFC 9110 section 6.4.1): further bytes are
    # unsolicited.
    sends("a 304 with a body", http(OK, status=b"HTTP/1.1 304 Not Modified"), MISCONFIGURED, *BAD_HTTP),
    sends("a 204 with a body", http(OK, status=b"HTTP/1.1 204 No Content"), no_answer("not_json"), *BAD_HTTP),
    sends("a 204", b"HTTP/1.1 204 No Content\r\n\r\n", no_answer("not_json")),
    sends(
        "a 204 in chunks",
        CHUNKED.replace(b"200 OK", b"204 No") + ONE_CHUNK + b"0\r\n\r\n",
        no_answer("not_json"),
        *BAD_HTTP,
    ),
    sends(
        "a 101 to a websocket",
        http(OK, b"Connection: upgrade", b"Upgrade: websocket", status=b"HTTP/1.1 101 Switching Protocols"),
        no_answer("http_101"),
        *BAD_HTTP,
    ),
    sends("a 101 to nothing", http(OK, status=b"HTTP/1.1 101 Go"), no_answer("http_101"), *BAD_HTTP),
    coded(201, OK, DELIVERED),
    coded(206, OK, DELIVERED),
    *(coded(code, REFUSED, rejected("insufficient_funds")) for code in (400, 402, 404, 409, 422)),
    coded(409, b'{"status":"DUPLICATE_TRANSACTION","balance":95000}', DELIVERED),
    *(coded(code, PAGE, MISCONFIGURED) for code in (401, 403, 404, 405, 410)),
    coded(401, b'{"status":"UNAUTHORIZED"}', MISCONFIGURED),
    coded(407, PAGE, no_answer("http_407")),
    coded(418, b"", no_answer("http_418")),
    *(coded(code, OK, no_answer(f"http_{code}")) for code in (500, 502, 503, 504, 599, 600, 999)),
    *(
        sends(
            f"a {code} with Retry-After {value[:40]}", http(PAGE, b"Retry-After: " + value.encode(), status=line), right
        )
        for code in (429, 503)
        for line, right in ((b"HTTP/1.1 %d Later" % code, no_answer(f"http_{code}")),)
        for value in ("9" * 400, "-1", "1e9", "NaN", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 1 Jan 0001 00:00:00 +9999")
    ),
    garbage("a code of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    garbage("a code of four digits", http(status=b"HTTP/1.1 2000 OK")),
    garbage("a code in letters", http(status=b"HTTP/1.1 OK")),
    garbage("a code below nought", http(status=b"HTTP/1.1 -200 OK")),
    # No interim answer: its body must not become a part of the next one's.
    sends("a code below 100, and an answer behind it", http(OK[:9], status=b"HTTP/1.1 099 A") + http(), *BAD_HTTP),
    sends("a code of nought, and an answer behind it", http(b"", status=b"HTTP/1.1 000 A") + http(), *BAD_HTTP),
)

FRAMING: tuple[Entry, ...] = (
    length("too long, and closed", b"600", *broken("truncated"), then=Then.CLOSES),
    length("too long, and reset", b"600", *CUT, then=Then.RESETS),
    length("too short", b"20", no_answer("not_json"), *BAD_HTTP, then=Then.CLOSES),
    sends("two answers in one segment", http() + HIDDEN, DELIVERED),
    sends("a refusal, and an answer behind it", http(REFUSED) + HIDDEN, rejected("insufficient_funds")),
    sends("a 500, and an answer behind it", http(b"", status=b"HTTP/1.1 500 No") + HIDDEN, no_answer("http_500")),
    sends("an answer behind nothing", http(b"") + HIDDEN, no_answer("not_json")),
    sends("thousand answers", http() + HIDDEN * 1_000, DELIVERED),
    sends("an answer, and bytes behind it", http() + b"\0\xff" * 20, *EITHER),
    length("nought", b"0", no_answer("not_json"), *BAD_HTTP),
    *(
        length(value.decode() or "empty", value, *BAD_HTTP, then=Then.CLOSES)
        for value in (b"-1", b"+60", b"0x3c", b"60 60", b"six", b"1e2", b"99999999999999999999999", b"60;60")
    ),
    # A list of equal lengths may be accepted or refused (RFC 9110 section 8.6).
    length("listed", b"%d, %d" % (len(OK), len(OK)), *EITHER, then=Then.CLOSES),
    length("empty", b"", *EITHER, no_answer("not_json"), then=Then.CLOSES),
    head("two lengths, not the same", b"Content-Length: 5\r\n", *BAD_HTTP, then=Then.CLOSES),
    head("two lengths, the same", b"Content-Length: %d\r\n" % len(OK), *EITHER, then=Then.CLOSES),
    # The parser takes such a line for a length, so it is one.
    length(
        "named with a space, too long, and closed",
        b"600",
        *broken("truncated"),
        *BAD_HTTP,
        then=Then.CLOSES,
        colon=b" : ",
    ),
    sends(
        "chunks named with a space, no last one, and closed",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + ONE_CHUNK,
        *broken("truncated"),
        *BAD_HTTP,
        then=Then.CLOSES,
    ),
    sends("a length and chunks", http(ONE_CHUNK, b"Transfer-Encoding: chunked"), *BAD_HTTP, then=Then.CLOSES),
    sends(
        "chunks and a length",
        CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n" + ONE_CHUNK + b"0\r\n\r\n",
        *BAD_HTTP,
        then=Then.CLOSES,
    ),
    sends("no length, and closed", http(length=False), DELIVERED, then=Then.CLOSES),
    sends("HTTP/1.0 until it closes", http(status=b"HTTP/1.0 200 OK", length=False), DELIVERED, then=Then.CLOSES),
    sends("no length, and half an object", http(OK[:30], length=False), no_answer("not_json"), then=Then.CLOSES),
    # A client may take a RST for the end of such a body. A truncated object is not valid JSON, so
    # this is safe.
    sends("no length, and reset", http(length=False), DELIVERED, *CUT, then=Then.RESETS),
    sends("half an object, and reset", http(OK[:30], length=False), no_answer("not_json"), *CUT, then=Then.RESETS),
    sends("chunks, one byte each", chunked(*(OK[n : n + 1] for n in range(len(OK)))), DELIVERED, body=OK),
    chunks("no last one, and closed", ONE_CHUNK, *broken("truncated"), then=Then.CLOSES),
    chunks("no last one, and reset", ONE_CHUNK, *CUT, then=Then.RESETS),
    chunks("cut in the middle", ONE_CHUNK[:30], *broken("truncated"), then=Then.CLOSES),
    chunks("cut in the size", b"3", *broken("truncated"), then=Then.CLOSES),
    *(
        chunks(f"of size {size.decode() or 'nothing'}", size + b"\r\n" + OK + b"\r\n0\r\n\r\n", *BROKEN_BODY)
        for size in (b"zz", b"-1", b"+3c", b"0x3c", b"FFFFFFFFFFFFFFFFF", b"3c 3c", b"", b"3")
    ),
    chunks("no line's end behind one", ONE_CHUNK[:-2] + b"0\r\n\r\n", *BROKEN_BODY),
    chunks("an extension of 100 KB", b"%x;" % len(OK) + b"x" * 100_000 + b"\r\n" + OK + b"\r\n0\r\n\r\n", *EITHER),
    chunks("trailers", ONE_CHUNK + b"0\r\nX-Sum: 1\r\nContent-Length: 3\r\n\r\n", *EITHER, *broken("truncated")),
    chunks("10,000 trailers", ONE_CHUNK + b"0\r\n" + b"X-T: x\r\n" * 10_000 + b"\r\n", *BROKEN_BODY, *TOO_LONG),
    chunks("an answer behind the last one", ONE_CHUNK + b"0\r\n\r\n" + HIDDEN, DELIVERED),
)
