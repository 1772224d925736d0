"""openapi.json describes what is really sent and answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate

from predictu_dispatch.certification.requests import callback_of
from predictu_dispatch.core.callback import body as wire_body
from predictu_dispatch.core.methods import Method
from predictu_dispatch.reference_operator.answer import Status
from predictu_dispatch.reference_operator.callback import read_callback
from predictu_dispatch.reference_operator.money import Money
from tests.certification.sandbox import Sandbox
from tests.reference_operator.client import OPERATOR_ID, PACKAGE, bet_body, body_of, running
from tests.reference_operator.exchanges import exchanges
from tests.support.vectors import ACTIVE

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

DOCUMENT: dict[str, Any] = json.loads((PACKAGE / "openapi.json").read_text(encoding="utf-8"))
POST: dict[str, Any] = DOCUMENT["paths"]["/predictu"]["post"]
GET: dict[str, Any] = DOCUMENT["paths"]["/predictu/ledger"]["get"]
REQUEST: dict[str, Any] = POST["requestBody"]["content"]["application/json"]
BY_FAULT_ONLY = {Status.INTERNAL_ERROR, Status.UNAVAILABLE}
"""What the exchanges do not show."""


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def answer_schema(operation: dict[str, Any], http_status: int) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"][str(http_status)]["content"]["application/json"]["schema"]
    return schema


def test_it_is_openapi_3_1() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_each_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for name, example in REQUEST["examples"].items():
        validator(REQUEST["schema"]).validate(example["value"])
        assert example["value"]["method"] == name
    for code, response in POST["responses"].items():
        for name, example in response["content"]["application/json"].get("examples", {}).items():
            validator(answer_schema(POST, code)).validate(example["value"])
            assert example["value"]["status"] in (name, "OK")


async def test_the_examples_are_real_exchanges_and_every_answer_fits(tmp_path: Path) -> None:
    async with running(tmp_path, "--seed-balance", "100000") as operator:
        done = await exchanges(operator)
    examples = {
        name: (int(code), example["value"])
        for code, response in POST["responses"].items()
        for name, example in response["content"]["application/json"].get("examples", {}).items()
    }
    requests = {name: example["value"] for name, example in REQUEST["examples"].items()}
    seen = set()
    for exchange in done:
        validator(answer_schema(POST, exchange.http_status)).validate(exchange.answer)
        seen.add(exchange.answer["status"])
        shown_status, shown = examples[exchange.name]
        assert shown_status == exchange.http_status
        assert shown.keys() == exchange.answer.keys()
        # The id of a transaction is random; the same one is shown for the same booking.
        assert shown | {"transaction_id": ""} == exchange.answer | {"transaction_id": ""}
        if exchange.name in requests:
            assert json.loads(exchange.body) == requests[exchange.name]
    assert examples["BET_MAKE"][1]["transaction_id"] == examples["DUPLICATE"][1]["transaction_id"]
    assert seen == set(Status) - BY_FAULT_ONLY
    assert requests.keys() == set(Method)
    assert examples.keys() == {exchange.name for exchange in done}


async def test_answers_by_fault_and_of_the_ledger_fit_too(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        for fault, http_status in (("error_before_apply", 500), ("unavailable", 503)):
            assert await operator.admin("faults", {fault: 1}) == 200
            status, answer = await operator.post(body_of("PING"))
            assert status == http_status
            validator(answer_schema(POST, status)).validate(answer)
        async with operator.http.get(f"{operator.url}/ledger") as reply:
            assert reply.status == 401
            validator(answer_schema(GET, 401)).validate(await reply.json())
        async with operator.http.post(operator.url, data=b" " * 300_000) as reply:
            validator(answer_schema(POST, reply.status)).validate(await reply.json())


@pytest.mark.parametrize("method", Method)
def test_each_callback_as_our_dispatcher_writes_it_fits_exactly_one_schema(method: Method) -> None:
    without_money: dict[Method, dict[str, Any]] = {
        Method.PING: {},
        Method.BALANCE: {"player_id": "p-1", "currency": "EUR"},
        Method.BET_LOSE: {"player_id": "p-1", "bet_id": "b-1"},
    }
    params = without_money.get(method, {"player_id": "p-1", "currency": "EUR", "amount": 1250, "bet_id": "b-1"})
    if method is Method.BET_MAKE:
        params["bet"] = {"market_id": "m-7", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}
    if method is Method.BET_ROLLBACK:
        params["rollback_of"] = str(uuid4())
    callback = callback_of(
        Sandbox(url="http://127.0.0.1:8080/predictu", folder=Path(), key=ACTIVE).target(),
        method,
        request_id=str(uuid4()),
        params=json.dumps(params | {"further": {"members": [1]}}),
        created_at=datetime.now(UTC),
    )
    envelope = json.loads(wire_body(callback))
    validator(REQUEST["schema"]).validate(envelope)
    fitting = [
        name
        for name in DOCUMENT["components"]["schemas"]["Callback"]["discriminator"]["mapping"].values()
        if validator({"$ref": name}).is_valid(envelope)
    ]
    assert fitting == [DOCUMENT["components"]["schemas"]["Callback"]["discriminator"]["mapping"][method]]


def broken(good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the callback without each member, and with a value of another type in each place."""
    for member in good:
        yield {key: value for key, value in good.items() if key != member}
        yield good | {member: 7}
    for member in good["params"]:
        yield good | {"params": {key: value for key, value in good["params"].items() if key != member}}
        yield good | {"params": good["params"] | {member: ["x"]}}
    yield good | {"request_id": good["request_id"].upper()}
    for amount in (-1, 0, 0.5, True, "5", 10**18):
        yield good | {"params": good["params"] | {"amount": amount}}
    yield good | {"params": good["params"] | {"player_id": "x" * 201}}


def test_what_the_schemas_refuse_is_a_bad_request_and_the_other_way_round() -> None:
    good = json.loads(bet_body("BET_MAKE", "b-1", request_id=str(UUID(int=0xA << 124))))
    valid = validator(REQUEST["schema"])
    assert valid.is_valid(good)
    wrong = list(broken(good))
    assert [one for one in wrong if valid.is_valid(one)] == []
    read = [read_callback(json.dumps(one).encode(), operator_id=OPERATOR_ID, money=Money()) for one in wrong]
    assert {getattr(answer, "status", "read") for answer in read} == {"BAD_REQUEST"}
