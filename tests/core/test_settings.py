"""The keys of the configuration files, with their defaults, bounds and combinations."""

import tomllib
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from predictu_dispatch.commands.keys.common import ALGORITHMS
from predictu_dispatch.core.answer import BUILT_IN_STATUSES
from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.core.operator_settings import (
    OperatorSettings,
    SigningAlgorithm,
    settings_fingerprint,
)
from predictu_dispatch.core.settings import DispatcherSettings, known_keys, refusals

CONFIG = Path(__file__).parents[2] / "config"

LEAST: dict[str, Any] = {
    "operator_id": "op_abc123",
    "callback_url": "https://wallet.example.com/predictu",
    "signing": {"key_file": "keys/op_abc123.pem"},
}

# The contract, written out, so that a mistake in the models is found.
CONTRACT = """
operator_id  = "op_abc123"
callback_url = "https://wallet.example.com/predictu"
enabled = true
amount_format = "subunits"
allow_insecure_http = false
allow_private_addresses = false
[signing]
algorithm = "EdDSA"
key_file = "keys/op_abc123.pem"
jti = "request_id"
token_ttl_s = 30
audience = ""
[interactive]
deadline_s = 15.0
attempt_timeout_s = 5.0
connect_timeout_s = 2.0
max_attempts = 3
initial_delay_s = 0.2
multiplier = 2.0
max_delay_s = 2.0
jitter = 0.2
max_in_flight = 32
[settlement]
deadline_s = 0
attempt_timeout_s = 10.0
connect_timeout_s = 2.0
max_attempts = 400
initial_delay_s = 1.0
multiplier = 2.0
max_delay_s = 300.0
jitter = 0.2
max_in_flight = 16
[rollback]
recheck_s = 60.0
[limits]
max_requests_per_s = 0
max_response_bytes = 65536
[circuit]
failure_threshold = 10
open_s = 5.0
[health]
ping_interval_s = 30.0
[statuses]
success = []
rejected = []
nothing_to_reverse = []
retry = []
[tls]
ca_file = ""
client_cert_file = ""
client_key_file = ""
[sandbox]
callback_url = ""
key_file = ""
players = []
currency = "EUR"
[reconcile]
format = "csv"
time_zone = "UTC"
day_starts = "00:00"
settle_s = 900
amount_format = "subunits"
amount_sign = "player"
no_end_days = 90
url = ""
[reconcile.columns]
booked_at = "booked_at"
amount = "amount"
currency = "currency"
request_id = "request_id"
transaction_id = "transaction_id"
bet_id = "bet_id"
method = "method"
direction = "direction"
player_id = "player_id"
[reconcile.values]
amount = {}
currency = {}
request_id = {}
transaction_id = {}
bet_id = {}
method = {}
direction = {}
player_id = {}
"""


def keys_in(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a file as `section.key`, and the sections."""
    for key, value in table.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys_in(value, f"{prefix}{key}.")


def changed(*path: str, to: object) -> dict[str, Any]:
    """Return the smallest operator file with one key changed."""
    file = {key: dict(value) if isinstance(value, dict) else value for key, value in LEAST.items()}
    table = file
    for name in path[:-1]:
        table = table.setdefault(name, {})
    table[path[-1]] = to
    return file


def refused(given: dict[str, Any]) -> dict[str, str]:
    """Return the refused keys with what is allowed."""
    with pytest.raises(ValidationError) as raised:
        OperatorSettings.model_validate(given)
    return {refusal.key: refusal.allowed for refusal in refusals(raised.value, OperatorSettings, given)}


def test_an_operator_file_of_three_keys_has_every_default_of_the_contract() -> None:
    contract = tomllib.loads(CONTRACT)
    assert OperatorSettings.model_validate(LEAST) == OperatorSettings.model_validate(contract)
    assert {*known_keys(OperatorSettings)} == {*keys_in(contract)}


def test_an_empty_dispatcher_file_has_every_default_of_the_contract() -> None:
    assert DispatcherSettings().model_dump(exclude={"database": {"dsn", "listen_dsn"}}) == {
        "database": {"pool_size": 4},
        "daemon": {"instance": "", "drain_s": 20.0, "poll_interval_s": 0.5, "audit_retention_months": 24},
        "http": {"listen": "127.0.0.1:9464", "keys_listen": ""},
        "log": {"level": "info", "format": "auto"},
        "audit": {"origin": "", "key_file": "", "seal_s": 5.0, "witness": ()},
        "certify": {"key_file": ""},
    }


def test_the_files_in_config_show_every_key_with_its_default() -> None:
    dispatcher = tomllib.loads((CONFIG / "dispatcher.toml").read_text())
    assert DispatcherSettings.model_validate(dispatcher) == DispatcherSettings()
    operator = tomllib.loads((CONFIG / "operators" / "op_example.toml.example").read_text())
    least = {key: operator[key] for key in ("operator_id", "callback_url")}
    least["signing"] = {"key_file": operator["signing"]["key_file"]}
    assert OperatorSettings.model_validate(operator) == OperatorSettings.model_validate(least)
    for model, file in ((DispatcherSettings, dispatcher), (OperatorSettings, operator)):
        assert {*keys_in(file)} == {*known_keys(model)}


_COSIGNER = str(VerifierKey.of_seed("wallet.example.com/w1", b"s" * 32, Algorithm.COSIGNATURE_V1))


def witnesses(*tables: dict[str, Any]) -> dict[str, Any]:
    usual = {"name": "one", "vkey": _COSIGNER, "url": "https://wallet.example.com"}
    return {"audit": {"witness": [usual | table for table in tables]}}


@pytest.mark.parametrize(
    "table", [{}, {"url": "https://h:8443/audit"}, {"url": "http://127.0.0.1:80"}, {"url": "http://[::1]:8080/w/"}]
)
def test_a_witness_is_reached_by_https_or_on_this_host(table: dict[str, Any]) -> None:
    [witness] = DispatcherSettings.model_validate(witnesses(table)).audit.witness
    assert witness.vkey == _COSIGNER


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        (witnesses({"url": "http://wallet.example.com"}), "audit.witness[0].url", '"http://wallet.example.com"'),
        (witnesses({"url": "http://localhost.example"}), "audit.witness[0].url", '"http://localhost.example"'),
        (witnesses({"url": "https://u:p@h"}), "audit.witness[0].url", '"https://…@h"'),
        (witnesses({"url": "https://h/?a"}), "audit.witness[0].url", '"https://h/?a"'),
        (witnesses({"url": "https://h\n"}), "audit.witness[0].url", '"https://h\\n"'),
        (witnesses({}, {"name": "a b"}), "audit.witness[1].name", '"a b"'),
        (witnesses({"vkey": _COSIGNER[:-1]}), "audit.witness[0].vkey", None),
        (witnesses({"vkey": str(VerifierKey.of_seed("log", b"s" * 32))}), "audit.witness[0].vkey", None),
        (witnesses({}, {}), "audit.witness", "[…, …]"),
        (witnesses({"uri": "x"}), "audit.witness[0].uri", '"x"'),
        ({"audit": {"witness": {}}}, "audit.witness", "a table"),
    ],
)
def test_a_wrong_witness_is_refused_by_name(given: dict[str, Any], key: str, value: str | None) -> None:
    with pytest.raises(ValidationError) as raised:
        DispatcherSettings.model_validate(given)
    [refusal] = refusals(raised.value, DispatcherSettings, given)
    assert (refusal.key, value or refusal.value) == (key, refusal.value)


def test_one_key_of_a_lane_keeps_the_other_defaults_of_that_lane() -> None:
    settings = OperatorSettings.model_validate(
        {**LEAST, "settlement": {"max_attempts": 7}, "interactive": {"jitter": 0}}
    )
    assert (settings.settlement.max_attempts, settings.settlement.max_delay_s) == (7, 300.0)
    assert (settings.interactive.jitter, settings.interactive.max_attempts) == (0.0, 3)


@pytest.mark.parametrize(
    ("given", "key", "allowed"),
    [
        (changed("enabled", to=1), "enabled", "must be true or false"),
        (changed("amount_format", to="cents"), "amount_format", 'must be "subunits" or "decimal"'),
        (changed("signing", "algorithm", to="HS256"), "signing.algorithm", 'must be "EdDSA" or "RS256"'),
        (changed("signing", "token_ttl_s", to=True), "signing.token_ttl_s", "must be a whole number from 1 to 3600"),
        (changed("signing", "token_ttl_s", to=30.0), "signing.token_ttl_s", "must be a whole number from 1 to 3600"),
        (changed("interactive", "jitter", to=1), "interactive.jitter", "must be a number from 0 to below 1"),
        (changed("interactive", "jitter", to=float("nan")), "interactive.jitter", "must be a number from 0 to below 1"),
        (changed("interactive", "jitter", to="0.2"), "interactive.jitter", "must be a number from 0 to below 1"),
        (changed("settlement", "multiplier", to=0.9), "settlement.multiplier", "must be a number from 1 to 100"),
        (
            changed("interactive", "connect_timeout_s", to=5.1),
            "interactive.connect_timeout_s",
            "must be at most attempt_timeout_s, which is 5",
        ),
        (
            changed("interactive", "initial_delay_s", to=3),
            "interactive.initial_delay_s",
            "must be at most max_delay_s, which is 2",
        ),
        (
            changed("interactive", "deadline_s", to=4.9),
            "interactive.deadline_s",
            "must be 0 for no deadline, or at least attempt_timeout_s, which is 5",
        ),
        (
            changed("tls", "client_cert_file", to="c.pem"),
            "tls.client_key_file",
            "must be set if client_cert_file is set, and only then",
        ),
        (
            changed("tls", "client_key_file", to="k.pem"),
            "tls.client_key_file",
            "must be set if client_cert_file is set, and only then",
        ),
        (changed("enabld", to=True), "enabld", "unknown key; did you mean enabled?"),
        (changed("signing", "enabled", to=True), "signing.enabled", "unknown key here; did you mean enabled?"),
        (
            changed("max_attempts", to=3),
            "max_attempts",
            "unknown key here; did you mean interactive.max_attempts or settlement.max_attempts?",
        ),
        (changed("rollback", "xyz", to=3), "rollback.xyz", "unknown key; known here: recheck_s"),
    ],
)
def test_a_refused_key_says_what_is_allowed(given: dict[str, Any], key: str, allowed: str) -> None:
    assert refused(given) == {key: allowed}


UNUSUAL_HOST = (
    "must be a URL whose host is a name in ASCII (xn--… for other letters, no dot at its end) or an IP address in its "
    "usual spelling, with a port from 1 to 65535 if any"
)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://wallet.example.com", "must be an https:// URL, or allow_insecure_http = true"),
        ("ftp://wallet.example.com", "must be an https:// URL"),
        ("wallet.example.com", "must be an https:// URL"),
        ("https:///predictu", "must be an https:// URL with a host, and a port from 1 to 65535 if any"),
        ("https://:443/", "must be an https:// URL with a host, and a port from 1 to 65535 if any"),
        ("https://h:65536/", "must be an https:// URL with a valid host and port"),
        ("https://[::1/", "must be an https:// URL with a valid host and port"),
        ("https://u:p@h/", "must be a URL without user and password; the signed token identifies us"),
        ("https://@h/", "must be a URL without user and password; the signed token identifies us"),
        ("https://h/#", "must be a URL without a fragment (#…), which is never sent"),
        ("https://h/\n", "must be a URL without spaces, backslashes or control characters"),
        ("https://good.example\\@evil.example/", "must be a URL without spaces, backslashes or control characters"),
        *(
            (f"https://{host}/", UNUSUAL_HOST)
            for host in ("ünï.example", "h.example.", "h..example", "h%41", "h<h", "h:")
        ),
        *((f"https://{host}/", UNUSUAL_HOST) for host in ("h:0443", f"{'a' * 64}.example", ".".join(["a" * 63] * 4))),
        ("https://h/é?b=c", "must be a URL in ASCII, with other characters percent-encoded, such as %C3%A9 for é"),
    ],
)
def test_an_unsafe_callback_url_is_refused(url: str, allowed: str) -> None:
    assert refused(changed("callback_url", to=url)) == {"callback_url": allowed}


@pytest.mark.parametrize(
    "url",
    [
        "https://h",
        "HTTPS://h:8443/a?b=c",
        "https://[2a00:1450:4001::1]:1/",
        "https://xn--n-iga8e.example/",
        "http://h:8080/",
    ],
)
def test_a_usual_callback_url_is_accepted_unchanged(url: str) -> None:
    given = {**LEAST, "callback_url": url, "allow_insecure_http": url.startswith("http:")}
    assert OperatorSettings.model_validate(given).callback_url == url


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4.5", "[fe80::1%25eth0]", "[fe80::1%eth0]"]
)
def test_an_address_in_another_spelling_is_refused_also_if_private_ones_are_allowed(host: str) -> None:
    given = {**LEAST, "callback_url": f"https://{host}/", "allow_private_addresses": True}
    assert refused(given) == {"callback_url": UNUSUAL_HOST}


@pytest.mark.parametrize("operator_id", ["", "a" * 65, "op.a", "op/a", "op a", "op_a\n", "öp"])
def test_an_operator_id_is_safe_as_a_file_name_a_label_and_in_a_url(operator_id: str) -> None:
    assert {*refused(changed("operator_id", to=operator_id))} == {"operator_id"}


@pytest.mark.parametrize(("one", "other"), [*permutations(BUILT_IN_STATUSES, 2)])
def test_a_status_has_one_meaning(one: str, other: str) -> None:
    for status in BUILT_IN_STATUSES[other]:
        assert {*refused(changed("statuses", one, to=[status]))} == {f"statuses.{one}"}
    twice = refused({**LEAST, "statuses": {one: ["NEW"], other: ["NEW"]}})
    assert len(twice) == 1
    assert "'NEW' is in" in next(iter(twice.values()))


def test_repeating_a_built_in_status_in_its_own_list_is_harmless() -> None:
    settings = OperatorSettings.model_validate(
        {**LEAST, "statuses": {k: sorted(v) for k, v in BUILT_IN_STATUSES.items()}}
    )
    assert set(settings.statuses.success) == BUILT_IN_STATUSES["success"]


def test_one_wrong_key_never_hides_another_of_its_section() -> None:
    lane = {"jitter": 2, "connect_timeout_s": 99, "deadline_s": 1, "max_attempts": "3", "retries": 1}
    assert {*refused({**LEAST, "interactive": lane})} == {f"interactive.{key}" for key in lane}


def test_every_number_is_bounded_on_both_sides() -> None:
    numbers = [
        (section, name, field)
        for model in (DispatcherSettings, OperatorSettings)
        for section, table in model.model_fields.items()
        for name, field in getattr(table.annotation, "model_fields", {}).items()
        if field.annotation in {int, float}
    ]
    assert len(numbers) == 32
    for section, name, field in numbers:
        limits = {limit for part in field.metadata for limit in ("ge", "le", "lt") if hasattr(part, limit)}
        assert limits in ({"ge", "le"}, {"ge", "lt"}), f"{section}.{name}"


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1))],
)
def test_listen_is_a_host_and_a_port(listen: str, address: tuple[str, int]) -> None:
    http = DispatcherSettings.model_validate({"http": {"listen": listen}}).http
    assert (http.address, http.keys_address) == (address, None)
    http = DispatcherSettings.model_validate({"http": {"listen": "h:1", "keys_listen": listen}}).http
    assert (http.address, http.keys_address) == (("h", 1), address)


@pytest.mark.parametrize("listen", ["", "9464", ":9464", "h:65536", "::1:80", "h:80\n", "h:٣"])
def test_any_other_listen_address_is_refused(listen: str) -> None:
    for key in ("listen", "keys_listen") if listen else ("listen",):
        with pytest.raises(ValidationError):
            DispatcherSettings.model_validate({"http": {key: listen}})


def test_the_two_listen_addresses_differ_unless_the_system_chooses_the_ports() -> None:
    with pytest.raises(ValidationError):
        DispatcherSettings.model_validate({"http": {"listen": "h:80", "keys_listen": "h:80"}})
    DispatcherSettings.model_validate({"http": {"listen": "h:0", "keys_listen": "h:0"}})


@given(st.dictionaries(st.sampled_from(["max_attempts", "max_in_flight"]), st.integers(1, 10_000)))
def test_equal_settings_have_equal_fingerprints_and_others_do_not(lane: dict[str, int]) -> None:
    plain = OperatorSettings.model_validate(LEAST)
    settings = OperatorSettings.model_validate({**LEAST, "settlement": lane})
    again = OperatorSettings.model_validate({"settlement": dict(reversed(lane.items())), **LEAST})
    assert settings_fingerprint(settings) == settings_fingerprint(again)
    assert (settings_fingerprint(settings) == settings_fingerprint(plain)) == (settings == plain)


SANDBOX = {"callback_url": "https://sandbox.example.com/", "key_file": "keys/s.pem", "players": ["p-1"]}
_SANDBOX_PLAYERS = (
    "must be a list of different test players, each of 1 to 200 characters, at least one if callback_url is set; the"
    " first two are used"
)
_SANDBOX_KEY = (
    'must be a PKCS#8 PEM file relative to this file, another one than signing.key_file, or "" if callback_url is ""'
)


def sandbox(**keys: object) -> dict[str, Any]:
    return changed("sandbox", to={**SANDBOX, **keys})


def test_a_sandbox_changes_nothing_for_a_daemon() -> None:
    settings = OperatorSettings.model_validate(sandbox(players=["p-1", "p-2", "p-3"], currency="USDT"))
    assert settings.sandbox.players == ("p-1", "p-2", "p-3")
    assert settings_fingerprint(settings) == settings_fingerprint(OperatorSettings.model_validate(LEAST))


@pytest.mark.parametrize(
    ("given", "key", "allowed"),
    [
        (
            sandbox(callback_url="http://s.example/"),
            "callback_url",
            "must be an https:// URL, or allow_insecure_http = true",
        ),
        (
            sandbox(callback_url="https://10.0.0.1/"),
            "callback_url",
            "must be a URL of a public host, or allow_private_addresses = true (10.0.0.1 is private (RFC 1918))",
        ),
        (sandbox(callback_url=""), "key_file", _SANDBOX_KEY),
        (sandbox(key_file=""), "key_file", _SANDBOX_KEY),
        (sandbox(players=[]), "players", _SANDBOX_PLAYERS),
        (sandbox(players=["p-1", "p-1"]), "players", _SANDBOX_PLAYERS),
        (sandbox(players=["p-1", "p\n"]), "players[1]", _SANDBOX_PLAYERS),
        (sandbox(players="p-1"), "players", _SANDBOX_PLAYERS),
        (
            sandbox(currency="eur"),
            "currency",
            "must be the players' currency, 3 to 10 capital letters and digits, such as EUR",
        ),
        (sandbox(player=[]), "player", "unknown key; did you mean sandbox.players?"),
    ],
)
def test_a_wrong_sandbox_is_refused(given: dict[str, Any], key: str, allowed: str) -> None:
    assert refused(given) == {f"sandbox.{key}": allowed}


def test_a_sandbox_follows_the_rules_of_its_operators_urls() -> None:
    given = {
        **sandbox(callback_url="http://127.0.0.1:8080/s"),
        "allow_insecure_http": True,
        "allow_private_addresses": True,
    }
    assert OperatorSettings.model_validate(given).sandbox.callback_url == "http://127.0.0.1:8080/s"


def test_an_integer_for_a_float_is_the_same_setting() -> None:
    one, other = (OperatorSettings.model_validate(changed("circuit", "open_s", to=value)) for value in (5, 5.0))
    assert settings_fingerprint(one) == settings_fingerprint(other)


def test_the_commands_offer_exactly_the_algorithms_of_the_settings() -> None:
    assert get_args(SigningAlgorithm) == ALGORITHMS


@pytest.mark.parametrize(
    "origin", ["a b", "a+b", "https://audit.example", "/a", "a/", "a//b", "é.example", "a\n", "a" * 201]
)
def test_an_origin_names_a_key_in_notes_and_has_no_scheme(origin: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DispatcherSettings.model_validate({"audit": {"origin": origin, "key_file": "audit.pem"}})
    given = {"audit": {"origin": origin}}
    assert [refusal.key for refusal in refusals(raised.value, DispatcherSettings, given)] == ["audit.origin"]


def test_an_origin_needs_a_key_file() -> None:
    given = {"audit": {"origin": "audit.predictu.example/dispatch"}}
    with pytest.raises(ValidationError) as raised:
        DispatcherSettings.model_validate(given)
    [refusal] = refusals(raised.value, DispatcherSettings, given)
    assert (refusal.key, "keys new --audit" in refusal.allowed) == ("audit.key_file", True)
    DispatcherSettings.model_validate({"audit": {"key_file": "audit.pem"}})
