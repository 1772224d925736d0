"""A run made by hand, with everything that a report shows and an answer of a hostile operator."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from predictu_dispatch.certification.observation import NOTHING_TO_REVERSE, Ledger, LedgerRow, Observed, Sent, TlsFacts
from predictu_dispatch.certification.result import PlayerMoney, Reversal, RunResult, ScenarioResult
from predictu_dispatch.certification.scenario import Finding, Group, Need, Scenario, ScenarioVerdict
from predictu_dispatch.certification.steps import Again, Batch, Delivery, Handshake, ReadLedger, Send, TokenFault
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Judgement, Verdict

RUN = "20261130-101502-3f2a"
START = datetime(2026, 11, 30, 10, 15, 2, 120_000, tzinfo=UTC)
HOSTILE = (
    b'{"status":"<script>alert(1)</script>","note":"\xe2\x80\xaetxet\xe2\x80\xac \x1b[2J\x00 ]]>&amp;\xd7\xa9","x":"'
    + b"A" * 5000
    + b'"}'
)
TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJwcmVkaWN0dSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
SIGNATURE = TOKEN.rpartition(".")[2]


def sent(
    name: str,
    method: Method = Method.BET_MAKE,
    *,
    amount: int | None = 500,
    exchange: Exchange | None = None,
    judgement: Judgement | None = None,
    token: TokenFault = TokenFault.NONE,
    delivery: Delivery = Delivery.COMPLETE,
    seconds: float = 0,
) -> Sent:
    request_id = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    params = {"player_id": "p-1", "currency": "EUR", "amount": amount, "bet_id": f"cert-{RUN}-x-b"}
    body = json.dumps({"method": method, "request_id": request_id, "params": params}, separators=(",", ":")).encode()
    answer = b'{"status":"OK","balance":9500,"transaction_id":"tx-1"}'
    return Sent(
        name=name,
        method=method,
        request_id=request_id,
        bet_id=f"cert-{RUN}-x-b" if amount else "",
        player_id="p-1",
        amount=amount,
        body=body,
        header={} if token is TokenFault.MISSING else {"alg": "EdDSA", "typ": "JWT", "kid": "k-1"},
        claims={}
        if token is TokenFault.MISSING
        else {"iss": "predictu", "jti": request_id, "exp": 1_796_033_732, "digest": hashlib.sha256(body).hexdigest()},
        token=token,
        delivery=delivery,
        started_at=START + timedelta(seconds=seconds),
        exchange=exchange
        or Exchange(
            Evidence.ANSWERED,
            12.345,
            status=200,
            headers=(("Content-Type", "application/json"),),
            body=answer,
            connect_ms=1.2,
            first_byte_ms=11.9,
            peer="192.0.2.7:443",
        ),
        judgement=judgement
        or Judgement(Verdict.DELIVERED, operator_status="OK", operator_transaction_id="tx-1", balance=9500),
    )


def observed(*requests: Sent, after: int | None = 9500) -> Observed:
    return Observed(
        run=RUN,
        currency="EUR",
        digits=2,
        player_ids=("p-1", "p-2"),
        interactive_timeout_s=5.0,
        settlement_timeout_s=10.0,
        sent={each.name: each for each in requests},
        balances={"before": {0: 10_000}, "after": {0: after}},
        balance_reads=[sent("balance-before-0", Method.BALANCE, amount=None, seconds=-0.2)],
    )


def scenario(
    scenario_id: str,
    title: str = "A title",
    why: str = "A reason.",
    *,
    fix: str = "",
    needs: frozenset[Need] = frozenset(),
) -> Scenario:
    return Scenario(
        id=scenario_id,
        group=Group(scenario_id.partition("-")[0]),
        title=title,
        why=why,
        fix=fix,
        needs=needs,
        steps=(Send(name="debit", method=Method.BET_MAKE, bet="b", amount=500), Again(name="again", of="debit")),
        expectations=(),
    )


def passed(scenario_id: str, title: str, seen: Observed | None = None) -> ScenarioResult:
    return ScenarioResult(
        scenario=scenario(scenario_id, title, "Without it a bet is lost."),
        verdict=ScenarioVerdict.PASSED,
        observed=seen or observed(sent("debit")),
        started_at=START,
        duration_s=0.25,
    )


def failed_twice_debited() -> ScenarioResult:
    reset = Exchange(Evidence.UNANSWERED, 3.0, reason="reset", error="connection reset by peer")
    return ScenarioResult(
        scenario=scenario(
            "repetition-at-once",
            "The same debit twice at once",
            "A retry of a debit takes the stake twice: the player loses 5.00 EUR for each lost answer.",
            fix="Store request_id under a unique key, in the transaction that books.",
        ),
        verdict=ScenarioVerdict.FAILED,
        findings=(
            Finding(
                verdict=ScenarioVerdict.FAILED,
                expected="The stake is taken once: the balance falls by 5.00 EUR.",
                observed="The balance fell by 10.00 EUR, from 100.00 EUR to 90.00 EUR.",
                advice="Store request_id under a unique key, in the transaction that books.",
                about=("debit", "again"),
            ),
            Finding(
                verdict=ScenarioVerdict.WARNING,
                expected="The answer to a repeated request has the first transaction_id.",
                observed="The answer has no transaction_id.",
            ),
        ),
        observed=observed(
            sent("debit", exchange=reset, judgement=Judgement(Verdict.RETRY, "reset")),
            sent("again", seconds=0.4),
            sent("cut", delivery=Delivery.CUT_AFTER_BODY, seconds=0.5),
            after=9000,
        ),
        started_at=START,
        duration_s=0.5,
    )


def review_of_hostile_answer() -> ScenarioResult:
    exchange = Exchange(
        Evidence.ANSWERED,
        40.0,
        status=409,
        headers=(("X-<b>", "\x1b]0;title\x07 \u202e"), ("Set-Cookie", "a=" + "b" * 9000)),
        body=HOSTILE,
        truncated=True,
    )
    judgement = Judgement(Verdict.REJECTED, "unknown_status", operator_status="<script>alert(1)</script>")
    return ScenarioResult(
        scenario=scenario("order-two-ends", "A bet with two ends", "A second win pays the player twice."),
        verdict=ScenarioVerdict.REVIEW,
        findings=(
            Finding(
                verdict=ScenarioVerdict.REVIEW,
                expected="A refusal that production knows.",
                observed='The status "<script>alert(1)</script>\u202e" is not declared.',
                about=("again",),
            ),
        ),
        observed=observed(
            sent("debit"),
            sent("again", exchange=exchange, judgement=judgement),
            sent("latin", exchange=exchange._replace(body=b"\xff\xfe", status=500), judgement=Judgement(Verdict.RETRY)),
            sent("no-token", token=TokenFault.MISSING),
        ),
        started_at=START,
        duration_s=0.1,
    )


def batch_with_a_fault() -> ScenarioResult:
    lost = Exchange(Evidence.UNANSWERED, 5000.0, reason="timeout")
    batch = tuple(
        sent(f"b-{index}", amount=10, exchange=lost, judgement=Judgement(Verdict.RETRY, "timeout"))
        if index in (17, 33)
        else sent(f"b-{index}", amount=10, seconds=index / 100)
        for index in range(50)
    )
    seen = observed()
    seen.batches["batch"] = batch
    made = scenario("load-fifty", "Fifty debits in flight", "A lost debit is a bet without a stake.")
    return ScenarioResult(
        scenario=Scenario(
            id=made.id,
            group=made.group,
            title=made.title,
            why=made.why,
            steps=(Batch(name="batch", methods=(Method.BET_MAKE,), amounts=(10,), count=50, in_flight=50),),
            expectations=(),
        ),
        verdict=ScenarioVerdict.WARNING,
        findings=(
            Finding(
                verdict=ScenarioVerdict.WARNING,
                expected="Every request is answered.",
                observed="2 of 50 requests were not answered.",
                about=("b-33",),
            ),
        ),
        observed=seen,
        started_at=START,
        duration_s=5.0,
    )


def with_tls_and_ledger() -> ScenarioResult:
    seen = observed()
    seen.tls = TlsFacts(version="TLSv1.3", certificate_ends_at=START + timedelta(days=90))
    row = LedgerRow(
        request_id="r-1",
        transaction_id="tx-1",
        method="BET_MAKE",
        bet_id="b",
        player_id="p-1",
        currency="EUR",
        amount=-500,
    )
    seen.ledger = Ledger(rows=(row,) * 30)
    nothing = Judgement(Verdict.DELIVERED, NOTHING_TO_REVERSE, operator_status="BET_NOT_FOUND")
    seen.sent["rollback"] = sent("rollback", Method.BET_ROLLBACK, judgement=nothing)
    made = scenario("connection-tls", "TLS", "A stranger could read and change debits.")
    return ScenarioResult(
        scenario=Scenario(
            id=made.id,
            group=made.group,
            title=made.title,
            why=made.why,
            steps=(Handshake(), ReadLedger()),
            expectations=(),
        ),
        verdict=ScenarioVerdict.PASSED,
        observed=seen,
        started_at=START,
        duration_s=0.1,
    )


def skipped(reason: str = "no ledger is given; to check it, add --ledger URL") -> ScenarioResult:
    made = scenario("ledger-once", "The ledger has each booking once", "Books that differ cost a reconciliation.")
    return ScenarioResult(scenario=made, verdict=ScenarioVerdict.SKIPPED, reason=reason)


def results(verdicts: Mapping[str, ScenarioVerdict]) -> list[ScenarioResult]:
    """Results of scenarios by their id, without observations."""
    return [ScenarioResult(scenario=scenario(one), verdict=verdict) for one, verdict in verdicts.items()]


def run(
    *results: ScenarioResult,
    net: int | None = 0,
    unresolved: tuple[str, ...] = (),
    stopped: str = "",
    is_whole_suite: bool = True,
) -> RunResult:
    return RunResult(
        run=RUN,
        operator_id="op_abc123",
        url="https://sandbox.example.com/predictu",
        kid="k-1",
        algorithm="EdDSA",
        amount_format="subunits",
        currency="EUR",
        digits=2,
        players=("p-1",),
        started_at=START,
        ended_at=START + timedelta(seconds=82.4),
        results=results,
        reversal=Reversal(
            rolled_back=12,
            compensated=3,
            unresolved=unresolved,
            players=(PlayerMoney(player_id="p-1", before=10_000, after=None if net is None else 10_000 + net),),
        ),
        requests_sent=412,
        is_whole_suite=is_whole_suite,
        stopped=stopped,
    )


def bad_run() -> RunResult:
    """A run with every verdict."""
    return run(
        with_tls_and_ledger(),
        passed("money-balance", "The balance is read twice"),
        failed_twice_debited(),
        review_of_hostile_answer(),
        batch_with_a_fault(),
        skipped(),
        net=-500,
        unresolved=(f"bet cert-{RUN}-repetition-at-once-b: the operator answered 500 to its rollback",),
    )


def good_run() -> RunResult:
    return run(with_tls_and_ledger(), passed("money-balance", "The balance is read twice"), skipped())
