"""The reports of a run are exact, valid for their readers, and harmless whatever is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictu_dispatch.certification import report
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.report.words import DELIVERIES, GROUPS, HEADINGS, OUTCOMES, SIGNS, TOKENS
from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure
from predictu_dispatch.certification.scenario import Finding, Group, ScenarioVerdict
from predictu_dispatch.certification.steps import Delivery, TokenFault
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Judgement, Verdict
from tests.certification import made_results as made
from tests.support.html_page import Page, read_page

SCHEMA = json.loads(report.schema())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
KNOWN = ExpectedFailure(scenario="repetition-at-once", reason="fixed in our next release", until=date(2027, 1, 31))
PASSES_NOW = ExpectedFailure(
    scenario="money-balance", reason="old", until=date(2027, 1, 31), problem="money-balance no longer fails: remove it"
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters other than tab and line feed, zero width, and bidirectional controls."""


def write(result: RunResult, folder: Path, **options: Any) -> None:
    report.write_reports(result, folder, repeat_line=lambda scenario: f"certify op_abc123 --only {scenario}", **options)


def document(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / report.REPORT).read_bytes())
    return read


def page(folder: Path) -> Page:
    return read_page((folder / report.PAGE).read_text(encoding="utf-8"))


def cases(folder: Path) -> dict[str, ET.Element]:
    root = ET.fromstring((folder / report.JUNIT).read_bytes())  # noqa: S314 - we made it
    return {case.attrib["name"]: case for case in root.iter("testcase")}


def scenario_of(folder: Path, scenario_id: str) -> dict[str, Any]:
    return next(each for each in document(folder)["scenarios"] if each["id"] == scenario_id)


def objects_of(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from objects_of(value, f"{path}/{key}")


def test_the_schema_is_valid_closed_and_describes_every_property() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    found = dict(objects_of(SCHEMA))
    assert len(found) > 15
    assert [path for path, each in found.items() if each["additionalProperties"] is not False] == []
    undescribed = [
        f"{path}/{name}"
        for path, each in found.items()
        for name, value in each["properties"].items()
        if len(value.get("description", "")) < 5 and value != {"$ref": "#/$defs/request"}
    ]
    assert undescribed == []


def test_the_schema_has_the_values_of_the_program() -> None:
    request = SCHEMA["$defs"]["request"]["properties"]
    assert request["method"]["enum"] == list(Method)
    assert request["token"]["properties"]["fault"]["enum"] == list(TokenFault)
    assert request["delivery"]["enum"] == list(Delivery)
    assert request["outcome"]["enum"] == list(Outcome)
    assert request["judgement"]["properties"]["verdict"]["enum"] == list(Verdict)
    assert request["answer"]["properties"]["evidence"]["enum"] == list(Evidence)
    scenario = SCHEMA["$defs"]["scenario"]["properties"]
    assert scenario["group"]["enum"] == list(Group)
    assert scenario["verdict"]["enum"] == list(ScenarioVerdict)


def test_the_page_has_words_for_every_value() -> None:
    for words, values in (
        (TOKENS, TokenFault),
        (DELIVERIES, Delivery),
        (OUTCOMES, Outcome),
        (GROUPS, Group),
        (SIGNS, ScenarioVerdict),
        (HEADINGS, ScenarioVerdict),
    ):
        assert set(words) == set(values)


@pytest.mark.parametrize(
    "result",
    [
        made.bad_run(),
        made.good_run(),
        made.run(stopped="it was interrupted"),
        made.run(made.skipped("the run was stopped"), net=None, stopped="nothing answers"),
    ],
    ids=["bad", "good", "killed", "stopped"],
)
def test_every_report_fits_the_schema_and_links_only_to_itself(tmp_path: Path, result: RunResult) -> None:
    write(result, tmp_path, expected=[KNOWN, PASSES_NOW], notes=["No live URL is known."], clean_line="certify --clean")

    assert [f"{fault.json_path}: {fault.message[:200]}" for fault in VALIDATOR.iter_errors(document(tmp_path))] == []
    shown = page(tmp_path)
    assert shown.faults == []
    assert {link for link in shown.links if not link.startswith("#")} == set()
    assert {link.removeprefix("#") for link in shown.links} <= shown.ids


def test_a_hostile_answer_becomes_text_in_every_file(tmp_path: Path) -> None:
    write(made.bad_run(), tmp_path)

    for name in (report.REPORT, report.PAGE, report.JUNIT):
        content = (tmp_path / name).read_text(encoding="utf-8")
        assert UNSEEN.search(content) is None, name
    shown = page(tmp_path)
    assert shown.faults == []
    assert "default-src 'none'; style-src 'unsafe-inline'" in shown.policy
    assert shown.elements.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "form", "base", "svg"})
    assert "<script>alert(1)</script>" in shown.text
    assert "\\u202etxet\\u202c \\x1b[2J\\x00 ]]>&amp;" in shown.text
    assert re.search(r"url\(|@import|expression", shown.style) is None
    assert "<script>alert(1)</script>" in cases(tmp_path)["order-two-ends"].find("failure").attrib["message"]  # type: ignore[union-attr]


def test_bodies_are_exact_and_long_ones_are_shortened(tmp_path: Path) -> None:
    write(made.bad_run(), tmp_path)

    requests = {each["name"]: each for each in scenario_of(tmp_path, "order-two-ends")["requests"]}
    sent = made.review_of_hostile_answer().observed.sent  # type: ignore[union-attr]
    assert requests["debit"]["body"]["text"].encode() == sent["debit"].body
    hostile = requests["again"]["answer"]["body"]
    assert hostile["text"].encode() == made.HOSTILE[:4096]
    assert (hostile["length"], hostile["is_shortened"]) == (len(made.HOSTILE), True)
    assert hostile["sha256"] == hashlib.sha256(made.HOSTILE).hexdigest()
    assert base64.b64decode(requests["latin"]["answer"]["body"]["base64"]) == b"\xff\xfe"
    assert requests["no-token"]["token"] == {"fault": "missing", "header": {}, "claims": {}}
    assert requests["debit"]["sent_at"] == "2026-11-30T10:15:02.120Z"


@settings(max_examples=25, deadline=None)
@given(
    body=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")),
    text=st.text(max_size=80),
)
def test_whatever_an_operator_answers_every_file_is_valid_and_exact(body: bytes, text: str) -> None:
    exchange = Exchange(Evidence.ANSWERED, 1.0, status=200, headers=((text, text),), body=body, error=text)
    judgement = Judgement(Verdict.REJECTED, operator_status=text, operator_transaction_id=text, anomaly=text)
    finding = Finding(verdict=ScenarioVerdict.REVIEW, expected=text, observed=text, advice=text)
    unanswered = exchange._replace(evidence=Evidence.UNANSWERED, status=None)
    seen = made.observed(
        made.sent("debit", exchange=exchange, judgement=judgement), made.sent("again", exchange=unanswered)
    )
    result = replace(made.passed("money-balance", "Balance", seen), verdict=ScenarioVerdict.REVIEW, findings=(finding,))
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(made.run(result, unresolved=(text,)), folder)

        assert VALIDATOR.is_valid(document(folder))
        shown = scenario_of(folder, "money-balance")["requests"][0]["answer"]["body"]
        content = shown["text"].encode() if "text" in shown else base64.b64decode(shown["base64"])
        assert content == body
        assert page(folder).faults == []
        assert "failure" in {child.tag for child in cases(folder)["money-balance"]}
        for file in folder.iterdir():
            assert UNSEEN.search(file.read_text(encoding="utf-8")) is None


def test_a_character_that_the_limit_cuts_is_left_out(tmp_path: Path) -> None:
    body = b"x" * 4095 + "é".encode() * 10
    exchange = Exchange(Evidence.ANSWERED, 1.0, status=200, body=body)
    seen = made.observed(made.sent("debit", exchange=exchange))
    write(made.run(made.passed("money-balance", "Balance", seen)), tmp_path)

    assert scenario_of(tmp_path, "money-balance")["requests"][0]["answer"]["body"]["text"] == "x" * 4095


def test_no_file_has_the_signature_of_a_token(tmp_path: Path) -> None:
    """Whatever token an operator quotes, and wherever."""
    exchange = Exchange(
        Evidence.ANSWERED,
        1.0,
        status=400,
        error=f"cannot read {made.TOKEN}",
        headers=(("WWW-Authenticate", f"Bearer {made.TOKEN}"), (made.TOKEN, "x" * 4000 + made.TOKEN)),
        body=f'{{"status":"{made.TOKEN}"}}'.encode() + b"\xff",
    )
    judgement = Judgement(
        Verdict.REJECTED, operator_status=made.TOKEN, operator_transaction_id=made.TOKEN, anomaly=made.TOKEN
    )
    unanswered = exchange._replace(evidence=Evidence.UNANSWERED, status=None, body=b"", headers=())
    requests = made.sent("debit", exchange=exchange, judgement=judgement), made.sent("again", exchange=unanswered)
    result = made.run(made.passed("money-balance", "Balance", made.observed(*requests)), unresolved=(made.TOKEN,))
    write(result, tmp_path)

    part = made.SIGNATURE[:8]
    for name in (report.REPORT, report.PAGE, report.JUNIT):
        assert part not in (tmp_path / name).read_text(encoding="utf-8"), name
    [debit, _] = scenario_of(tmp_path, "money-balance")["requests"]
    assert part.encode() not in base64.b64decode(debit["answer"]["body"]["base64"])
    assert debit["judgement"]["status"].endswith("." + "*" * len(made.SIGNATURE))


def test_a_batch_is_a_summary_with_the_failing_requests_first(tmp_path: Path) -> None:
    write(made.bad_run(), tmp_path)

    [batch] = scenario_of(tmp_path, "load-fifty")["batches"]
    assert (batch["count"], batch["amount"], batch["slowest_ms"]) == (50, 500, 5000.0)
    assert batch["outcomes"] == [{"outcome": "confirmed", "count": 48}, {"outcome": "no_answer", "count": 2}]
    assert [each["name"] for each in batch["examples"]] == ["b-33", "b-17", "b-0", "b-1", "b-2"]


def test_the_page_says_what_failed_what_it_costs_and_what_to_do(tmp_path: Path) -> None:
    write(made.bad_run(), tmp_path, clean_line="certify op_abc123 --clean RUN")

    text = page(tmp_path).text
    in_order = (
        "Not passed: of 5 scenarios, 1 failed and 1 must be reviewed.",
        "Player p-1 has 5.00 EUR less than before the run.",
        "When your operator answers again, undo what is left: certify op_abc123 --clean RUN",
        "Begin with repetition-at-once",
        "Failed (1)",
        "the player loses 5.00 EUR for each lost answer.",
        "The balance fell by 10.00 EUR, from 100.00 EUR to 90.00 EUR.",
        "Store request_id under a unique key, in the transaction that books.",
        "before 100.00 EUR, after 90.00 EUR (-10.00 EUR)",
        "no answer (reset)",
        "No complete answer: connection reset by peer.",
        "connection cut after the body",
        "certify op_abc123 --only repetition-at-once",
        "For review (1)",
        "Warnings (1)",
        "Passed (2)",
        "Skipped (1)",
        "no ledger is given; to check it, add --ledger URL",
    )
    at = 0
    for sentence in in_order:
        assert sentence in text[at:], sentence
        at = text.index(sentence, at)


def test_junit_counts_failures_skips_and_output_as_ci_readers_expect(tmp_path: Path) -> None:
    write(made.bad_run(), tmp_path)

    root = ET.fromstring((tmp_path / report.JUNIT).read_bytes())  # noqa: S314 - we made it
    assert [suite.attrib["name"] for suite in root] == [
        "connection",
        "money",
        "repetition",
        "order",
        "load",
        "ledger",
        "run",
    ]
    counted = {name: root.attrib[name] for name in ("tests", "failures", "errors")}
    assert counted == {"tests": "7", "failures": "3", "errors": "0"}
    assert [suite.attrib["skipped"] for suite in root] == ["0", "0", "0", "0", "0", "1", "0"]
    kinds = {name: [child.tag for child in case] for name, case in cases(tmp_path).items()}
    assert kinds == {
        "connection-tls": [],
        "money-balance": [],
        "repetition-at-once": ["failure"],
        "order-two-ends": ["failure"],
        "load-fifty": ["system-out"],
        "ledger-once": ["skipped"],
        "run-passed": ["failure"],
    }
    failure = cases(tmp_path)["repetition-at-once"].find("failure")
    assert failure is not None
    assert failure.attrib["type"] == "FAILED"
    assert "certify op_abc123 --only repetition-at-once" in (failure.text or "")


def test_an_expected_failure_is_skipped_and_an_outdated_expectation_fails(tmp_path: Path) -> None:
    result = made.run(made.failed_twice_debited(), made.passed("money-balance", "Balance"))
    write(result, tmp_path, expected=[KNOWN])
    known = cases(tmp_path)["repetition-at-once"].find("skipped")
    assert known is not None
    assert known.attrib["message"] == "expected until 2027-01-31: fixed in our next release"
    assert cases(tmp_path)["run-passed"].find("failure") is None
    assert document(tmp_path)["passed"]
    assert "Passed: 2 scenarios played, 1 of them failed as expected." in page(tmp_path).text

    write(result, tmp_path, expected=[KNOWN, PASSES_NOW])
    outdated = cases(tmp_path)["money-balance"].find("failure")
    assert outdated is not None
    assert outdated.attrib["message"] == "expected failure: money-balance no longer fails: remove it"
    assert not document(tmp_path)["passed"]


def test_the_certificate_names_the_report_and_never_outlives_it(tmp_path: Path) -> None:
    write(made.good_run(), tmp_path, certify=lambda digest: f"title\n{digest}\n\n— certify.predictu key\n")
    note = (tmp_path / report.CERTIFICATE).read_text(encoding="utf-8")
    assert hashlib.sha256((tmp_path / report.REPORT).read_bytes()).hexdigest() in note
    assert "— certify.predictu key" in page(tmp_path).text

    write(made.bad_run(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "junit.xml", "report.json"]


def test_only_the_owner_reads_the_files_and_each_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(made.good_run(), tmp_path / "run")
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "run").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700

    def disk_is_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        write(made.bad_run(), tmp_path / "run")
    assert document(tmp_path / "run")["passed"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["index.html", "junit.xml", "report.json"]
