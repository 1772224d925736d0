"""Scenarios about the connection: TLS, PING, redirects, kept connections and answer times."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import Moved
from predictu_dispatch.certification.connection_expectations import (
    AnswerTime,
    ConnectionKept,
    GoodTls,
    NotRedirected,
)
from predictu_dispatch.certification.expectations import confirmed
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.scenarios.sends import debit, refund
from predictu_dispatch.certification.steps import Handshake, Send
from predictu_dispatch.core.methods import Method


def _ping(name: str = "ping") -> Send:
    return Send(name=name, method=Method.PING)


def _balance(name: str = "balance") -> Send:
    return Send(name=name, method=Method.BALANCE)


SCENARIOS: Final = (
    Scenario(
        id="connection-ping",
        group=Group.CONNECTION,
        title="PING is answered",
        why="While PING fails, Predictu treats you as down and accepts no bet: with 1,000 bets of 5.00 EUR an hour"
        " that is 5,000.00 EUR of stakes an hour.",
        steps=(_ping(),),
        expectations=(confirmed("ping"),),
        fix='Answer PING with HTTP 200 and {"status":"OK"}. If the answer is 401, compare the key, the operator id, and'
        " the digest: it is that of the bytes as they arrived.",
        players=(),
    ),
    Scenario(
        id="connection-tls",
        group=Group.CONNECTION,
        title="The certificate is valid, and TLS is 1.2 or newer",
        why="Once the certificate has expired, no callback reaches you: wins are paid late, and every bet of 5.00 EUR"
        " is refused.",
        steps=(Handshake(), _ping()),
        expectations=(GoodTls(ping="ping"), confirmed("ping")),
        fix="Renew the certificate automatically, and send the intermediate certificates too.",
        needs=frozenset({Need.TLS}),
        players=(),
    ),
    Scenario(
        id="connection-no-redirect",
        group=Group.CONNECTION,
        title="No answer is a redirect",
        why="Predictu never follows a redirect, because that would send a signed debit to another address. So every"
        " bet of 5.00 EUR is refused.",
        steps=(_ping(), _balance()),
        expectations=(NotRedirected(of=("ping", "balance")), confirmed("ping", "balance")),
        fix="Serve the callbacks at the exact URL that Predictu has, with the same scheme, host, path and final slash.",
        players=(),
    ),
    Scenario(
        id="connection-keep-alive",
        group=Group.CONNECTION,
        title="Connections are kept",
        why="A new TLS connection for each callback takes several round trips. A bet of 5.00 EUR may be confirmed after"
        " its odds have changed.",
        steps=(_ping("ping"), _ping("second-ping"), _ping("third-ping")),
        expectations=(confirmed("ping", "second-ping", "third-ping"), ConnectionKept(of=("second-ping", "third-ping"))),
        fix="Let the server or the proxy keep idle HTTP/1.1 connections for 60 seconds or more.",
        players=(),
    ),
    Scenario(
        id="connection-answer-time",
        group=Group.CONNECTION,
        title="Answers come well before the timeout",
        why="An answer after the timeout counts as none: the debit of 5.00 EUR is repeated and then rolled back, and"
        " the player has no bet.",
        steps=(_balance("balance"), _balance("second-balance"), debit(), refund()),
        expectations=(
            AnswerTime(of=("balance", "second-balance", "debit", "refund")),
            confirmed("balance", "second-balance", "debit", "refund"),
            Moved(by=0),
        ),
        fix="Answer a debit within half of the timeout. Do nothing slow before the answer, such as a call to another"
        " system.",
    ),
)
