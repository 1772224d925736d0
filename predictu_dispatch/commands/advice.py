"""What to do next: one table, reason or problem → what helps, with the command to run.

`status`, `top`, `why` and `reconcile show` take every advice from here. A name in braces is filled
in by the caller.
"""

from __future__ import annotations

from typing import Final

from predictu_dispatch.core.operator_problems import Problem
from predictu_dispatch.core.verdict import MISCONFIGURED, UNKNOWN_STATUS

_PING: Final = "predictu-dispatch ping {operator_id}"
_FILE: Final = "operators/{operator_id}.toml"
_CHECK: Final = "then: predictu-dispatch check && systemctl reload 'predictu-dispatch@*'"

NO_DAEMON: Final = "no daemon is running (none sends heartbeats), so nothing is sent to any operator"
START_DAEMON: Final = (
    "start one: systemctl start predictu-dispatch@INSTANCE; if its process runs, look for heartbeat.failed in its log"
)
_START_HERE: Final = "start a daemon: systemctl start predictu-dispatch@INSTANCE"

_AFTER_FAILURE: Final = {
    "address_refused": f"correct callback_url or set allow_private_addresses in {_FILE}, {_CHECK}",
    "dns_failed": f"compare the host name in {_FILE} with the operator's; to test it: {_PING}",
    "not_json": f"something else may answer at callback_url; to see the whole answer: {_PING}",
    "bad_http": f"something else may answer at callback_url; to test it: {_PING}",
    "too_large": f"raise [limits] max_response_bytes in {_FILE}, {_CHECK}",
    "no_socket": "raise LimitNOFILE: systemctl edit predictu-dispatch@",
    "internal_error": "send its log to the developers: journalctl -u 'predictu-dispatch@*'",
    "http_429": f"lower [limits] max_requests_per_s in {_FILE}, {_CHECK}",
    UNKNOWN_STATUS: f"ask the operator what it means and declare it under [statuses] in {_FILE}, {_CHECK}",
}
"""By the reason of the attempt that failed last; for every other reason, a PING shows the phase."""

_AFTER_MISCONFIGURED: Final = {
    401: "compare our key with the one at the operator: predictu-dispatch keys public {operator_id}",
    403: "compare our key with the one at the operator: predictu-dispatch keys public {operator_id}",
    404: f"correct callback_url in {_FILE}, {_CHECK}",
    405: f"correct callback_url in {_FILE}, {_CHECK}",
    410: f"correct callback_url in {_FILE}, {_CHECK}",
}
_AFTER_REDIRECT: Final = f"ask the operator for its final URL and set callback_url in {_FILE}, {_CHECK}"

_ON_PROBLEM: Final = {
    Problem.DISABLED: f"to send again, set enabled = true in {_FILE}, {_CHECK}",
    Problem.PAUSED: "to end the pause: predictu-dispatch resume {operator_id}",
    Problem.NO_DAEMON: _START_HERE,
    Problem.NOT_SERVED: f"put {_FILE} beside a daemon's dispatcher.toml, {_CHECK}",
    Problem.BACKING_OFF: f"it ends by itself; to ask the operator: {_PING}",
    Problem.LATE: "predictu-dispatch why {oldest_request_id}",
    Problem.UNKNOWN_EFFECT: "predictu-dispatch why {unknown_request_id}",
    Problem.NEVER_ANSWERED: f"to test it: {_PING}",
}
"""By the operator's first problem; what the operator's failure explains has the advice above."""

_ON_REVIEW: Final = {
    "delivered": "predictu-dispatch show {request_id}",
    "cancelled": "predictu-dispatch why {request_id}",
    "rejected": "find the cause with the operator; for its answer: predictu-dispatch why {request_id}",
    UNKNOWN_STATUS: "predictu-dispatch why {request_id}",
    "unknown": "ask the operator whether it applied it; for its answer: predictu-dispatch why {request_id}",
    "none": "send it again: predictu-dispatch retry {request_id}",
}


_ON_DIFFERENCE: Final = {
    "ours": "Our own records contradict each other, so do not ask the operator yet. To see what was changed:"
    " predictu-dispatch audit verify --operator {operator_id}",
    "booked_twice": "Ask the operator to reverse all bookings of this request but one; name their transactions.",
    "currency_differs": "Ask the operator to correct the currency of its booking to the one that we sent.",
    "player_differs": "Ask the operator to move its booking to the player that we named.",
    "amount_differs": "Ask the operator to correct its booking to the amount that we sent. If many amounts are wrong"
    " by the same factor, correct amount_format under [reconcile] in operators/{operator_id}.toml and run it again.",
    "booked_though_rejected": "The operator told us that it rejected this, and booked it: ask it to reverse the"
    " booking, and send it its own answer.",
    "booked_though_never_sent": "No request of ours reached the operator: ask it which request it booked, and to"
    " reverse the booking.",
    "debit_standing": "The operator confirmed the rollback and kept the debit: ask it to return the stake to the"
    " player.",
    "rolled_back_but_credited": "The bet was rolled back, so the operator must not pay it out as well: ask it to"
    " reverse this booking.",
    "two_ends": "The bet had ended before: ask the operator to reverse this second booking.",
    "missing_there": "Send the operator its own confirmation, and ask it to book this. If its file came late or was"
    " cut, reconcile the day again with the whole file.",
    "missing_here": "Ask the operator for the request that it booked; only a token of ours proves one. Bookings of"
    ' other products are excluded with "ignore" under [reconcile.values] in operators/{operator_id}.toml.',
}
"""By the class of an open difference."""


_ON_ROLLBACK_WITHOUT_DEBIT: Final = (
    "The debit was never confirmed and is not in their ledger, so there was nothing to return: ask the operator for its"
    " booking of the debit, or to reverse this one."
)


def on_difference(name: str, *, is_rollback_without_debit: bool = False) -> str:
    """The advice on an open difference, by its class."""
    return _ON_ROLLBACK_WITHOUT_DEBIT if is_rollback_without_debit else _ON_DIFFERENCE[name]


def after_failure(reason: str | None, status: int | None) -> str:
    """The advice on a failed attempt, by its reason and the HTTP code of its answer."""
    if reason == MISCONFIGURED and status is not None:
        return _AFTER_MISCONFIGURED.get(status, _AFTER_REDIRECT if 300 <= status < 400 else f"to test it: {_PING}")  # noqa: PLR2004 - the class of redirections
    return _AFTER_FAILURE.get(reason or "", f"to test it: {_PING}")


def on_problem(problem: Problem, reason: str | None, status: int | None) -> str:
    """The advice on an operator's problem; `reason` and `status` are those of its last failure."""
    return _ON_PROBLEM.get(problem) or after_failure(reason, status)


def on_review(state: str, reason: str | None, effect: str) -> str:
    """The advice on a callback of the review list."""
    if state == "rejected" and reason == UNKNOWN_STATUS:
        return _ON_REVIEW[UNKNOWN_STATUS]
    return _ON_REVIEW.get(state) or _ON_REVIEW[effect]
