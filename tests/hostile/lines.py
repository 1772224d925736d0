"""Bad header lines, other protocols, and wrong statements about the connection."""

from tests.hostile.entry import DELIVERED, OK, PAGE, Entry, Then, broken, http, no_answer, sends
from tests.hostile.heads import BAD_HTTP, EITHER, HIDDEN, TOO_LONG, garbage, head

NOT_JSON = no_answer("not_json")

LINES: tuple[Entry, ...] = (
    head("a header line of 1 MB", b"X-Huge: " + b"x" * 1_000_000 + b"\r\n", *TOO_LONG),
    head("a header name of 100 KB", b"X-" + b"y" * 100_000 + b": z\r\n", *TOO_LONG),
    head("10,000 headers", b"X-Many: x\r\n" * 10_000, *TOO_LONG),
    head(
        "1 MB of headers, none of them too long",
        b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8_000) for n in range(120)),
        *broken("too_large"),
    ),
    garbage("a status line of 1 MB", http(status=b"HTTP/1.1 200 " + b"O" * 1_000_000), *TOO_LONG),
    garbage("a status line of 8 KB that ends in a NUL", b"HTTP/1.1 2" + b"0" * 8_000 + b"\xff\0\r\n\r\n"),
    head("a header name of 8 KB that ends in a NUL", b"X-" + b"y" * 8_000 + b"\0: z\r\n", *BAD_HTTP),
    head("a header value of 8 KB that ends in a NUL", b"X-Y: " + b"z" * 8_000 + b"\x01\0\r\n", *BAD_HTTP),
    head("a NUL in a value", b"X-Nul: a\0b\r\n", *BAD_HTTP),
    sends("a NUL in a value, and an answer behind it", http(OK, b"X-Nul: a\0b") + HIDDEN, *BAD_HTTP, then=Then.CLOSES),
    head("a NUL in a name", b"X-\0: a\r\n", *BAD_HTTP),
    head("control characters", b"X-Ctl: \x01\x02\x7f\r\n", *EITHER),
    head("terminal escapes", b"X-Esc: \x1b[2J\x1b]0;owned\x07\r\n", *EITHER),
    head("headers that are not UTF-8", b"X-Bad: \xff\xfe caf\xe9\r\n", DELIVERED),
    head("a folded line", b"X-Fold: a\r\n b\r\n", *EITHER),
    head("a space before the colon", b"X-Space : a\r\n", *EITHER),
    head("a line without a colon", b"no colon here\r\n", *BAD_HTTP),
    head("a line without a name", b": a\r\n", *BAD_HTTP),
    head("a line of spaces", b"   \r\n", *EITHER),
    head("a carriage return alone in a value", b"X-Cr: a\rX-Other: b\r\n", *EITHER),
    garbage("the reason is not UTF-8", http(status=b"HTTP/1.1 200 \xff\xfe\xe9"), *EITHER),
    garbage("no reason", http(status=b"HTTP/1.1 200"), *EITHER),
    garbage("line feeds alone", http().replace(b"\r\n", b"\n"), *EITHER),
    garbage("carriage returns alone", http().replace(b"\r\n", b"\r")),
    garbage("empty lines first", b"\r\n" * 50 + http(), *EITHER),
    garbage("a space first", b" " + http()),
    # Truncated heads
    garbage("nothing", b"", *broken("reset")),
    garbage("nothing, and reset", b"", *broken("reset"), then=Then.RESETS),
    garbage("half a status line", b"HTTP/1.1 20", *broken("reset")),
    garbage("a head without its end", http()[: -len(OK) - 2], *broken("reset")),
    garbage("a head without its end, and reset", http()[: -len(OK) - 2], *broken("reset"), then=Then.RESETS),
    # Other protocols
    garbage("HTTP/0.9", OK),
    garbage("HTTP/9.9", http(status=b"HTTP/9.9 200 OK")),
    garbage("HTTP/2.0 as a status line", http(status=b"HTTP/2.0 200 OK"), *EITHER),
    garbage("HTTP/0.9 as a status line", http(status=b"HTTP/0.9 200 OK"), *EITHER),
    garbage("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    garbage("our own request", b"POST /predictu HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"),
    garbage("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    garbage("a TLS alert", bytes.fromhex("15030300020228")),
    garbage("a TLS record", bytes.fromhex("1603030200") + bytes(range(256)) * 2),
    garbage("NULs", b"\0" * 5_000),
    garbage("anything", bytes(range(256)) * 20),
    # Wrong keep-alive statements
    sends("keep-alive, and closed", http(OK, b"Connection: keep-alive"), DELIVERED, then=Then.CLOSES),
    sends("keep-alive, and reset", http(b"", b"Connection: keep-alive"), NOT_JSON, *broken("reset"), then=Then.RESETS),
    sends("close, and more behind it", http(OK, b"Connection: close") + HIDDEN, *EITHER),
    sends("both close and keep-alive", http(OK, b"Connection: keep-alive, close"), DELIVERED),
    head("kept alive forever", b"Connection: keep-alive\r\nKeep-Alive: timeout=99999999999, max=-1\r\n", DELIVERED),
    garbage("HTTP/1.0 kept alive", http(OK, b"Connection: keep-alive", status=b"HTTP/1.0 200 OK") + HIDDEN, *EITHER),
    # Noise
    head(
        "cookies, HSTS and other orders",
        b"Set-Cookie: session=1; Path=/; Domain=example.com\r\n" * 20
        + b"Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n"
        + b'Alt-Svc: h3="evil.example.com:443"; ma=86400\r\nClear-Site-Data: "*"\r\nRefresh: 0; url=http://127.0.0.1/\r\n'
        + b"Location: http://127.0.0.1:1/\r\nContent-Location: /elsewhere\r\nUpgrade: h2c\r\n",
        DELIVERED,
    ),
    *(
        head(f"called {kind!r}", b"Content-Type: " + kind + b"\r\n", DELIVERED)
        for kind in (b"text/html", b"image/png", b"application/json; charset=utf-16", b"\xff", b"multipart/mixed")
    ),
    sends("a page called JSON", http(PAGE, b"Content-Type: application/json"), NOT_JSON),
)
