"""The guard against live operators: which URLs are one endpoint, and which keys are live."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.certification.live_guard import Conflict, Live, Shared, conflicts, endpoint

LIVE = "https://wallet.example.com/predictu/callback"
SAME = [
    LIVE,
    "https://wallet.example.com/predictu/callback?env=test",
    "https://wallet.example.com/predictu/callback#test",
    "https://wallet.example.com/predictu/callback/",
    "https://wallet.example.com//predictu///callback//",
    "https://WALLET.Example.COM/predictu/callback",
    "HTTPS://wallet.example.com/predictu/callback",
    "https://wallet.example.com./predictu/callback",
    "https://wallet.example.com:443/predictu/callback",
    "http://wallet.example.com/predictu/callback",
    "http://wallet.example.com:80/predictu/callback",
    "http://wallet.example.com:443/predictu/callback",
    "https://wallet.example.com:80/predictu/callback",
    "https://wallet.example.com/%70redictu/callbac%6B",
    "https://wallet.example.com/%2570redictu/callback",
    "https://wallet.example.com/predictu%2Fcallback",
    "https://wallet.example.com/predictu%2fcallback%2f",
    "https://wallet.example.com/predictu/./callback",
    "https://wallet.example.com/test/../predictu/callback",
    "https://wallet.example.com/test/%2e%2E/predictu/callback",
    "https://wallet.example.com/../predictu/callback",
    "https://wallet.example.com/predictu;v=2/callback;test",
    "https://wallet.example.com/Predictu/Callback",
    "https://wallet.example.com\\predictu\\callback",
    "https://wallet.example.com/predictu%5Ccallback",
    "https://user:pw@wallet.example.com/predictu/callback",
    "https://wallet.ex%61mple.com/predictu/callback",
    "https://wallet.example.com/predictu/callback%00",
    "https://wallet.example.com/predictu/callback%20",
]
OTHER = [
    "https://sandbox.example.com/predictu/callback",
    "https://wallet.example.com.evil.example/predictu/callback",
    "https://wallet.example.com:8443/predictu/callback",
    "https://wallet.example.com/predictu/callback-test",
    "https://wallet.example.com/predictu",
    "https://wallet.example.com/test/predictu/callback",
    "https://wallet.example.com/predictucallback",
    "https://wallet.example.com/",
    "https://wallet.example.com/?u=/predictu/callback",
]


@pytest.mark.parametrize("url", SAME)
def test_a_url_that_may_name_the_live_endpoint_is_that_endpoint(url: str) -> None:
    live = Live(operator_id="op_a", callback_url=LIVE, kids=frozenset())
    assert conflicts(url, [], [live]) == (Conflict(shared=Shared.URL, operator_id="op_a"),)


@pytest.mark.parametrize("url", OTHER)
def test_another_endpoint_is_another_one(url: str) -> None:
    assert conflicts(url, ["mine"], [Live(operator_id="op_a", callback_url=LIVE, kids=frozenset({"live"}))]) == ()


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"),
        *("0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "[64:ff9b::7f00:1]"),  # noqa: S104 - an address to connect to
    ],
)
def test_every_loopback_host_is_this_host(host: str) -> None:
    assert endpoint(f"http://{host}:8080/x") == endpoint("http://127.0.0.1:8080/x")
    assert endpoint(f"http://{host}:8081/x") != endpoint("http://127.0.0.1:8080/x")


def test_two_spellings_of_an_address_are_one_host() -> None:
    assert endpoint("https://[2001:DB8::1]/x") == endpoint("https://[2001:db8:0:0:0:0:0:1]/x")
    assert endpoint("https://[::ffff:192.0.2.1]/x") == endpoint("https://192.0.2.1/x")
    assert endpoint("https://[64:ff9b::192.0.2.1]/x") == endpoint("https://192.0.2.1/x")


def test_each_key_that_a_live_operator_has_is_found_with_its_owner() -> None:
    live = [
        Live(operator_id="op_a", callback_url="https://a.example/", kids=frozenset({"active", "staged", "previous"})),
        Live(operator_id="op_b", callback_url="https://b.example/", kids=frozenset({"other"})),
    ]
    for kid in ("active", "staged", "previous"):
        assert conflicts("https://s.example/", ["mine", kid], live) == (
            Conflict(shared=Shared.KEY, operator_id="op_a", kid=kid),
        )
    both = conflicts("https://b.example", ["other"], live)
    assert [(one.shared, one.operator_id) for one in both] == [(Shared.URL, "op_b"), (Shared.KEY, "op_b")]


@given(st.text("abcXYZ/.%20;?\\", max_size=30))
def test_an_encoded_url_is_the_same_endpoint(path: str) -> None:
    """Encoding each character of the path changes nothing, whatever it has."""
    before_query = path.partition("?")[0]
    encoded = "".join("/" if c == "/" else f"%{ord(c):02x}" for c in before_query)
    assert endpoint(f"https://h.example/{encoded}") == endpoint(f"https://h.example/{before_query}")
