"""The table of advice: every problem and reason ends with a command that exists."""

import re
from itertools import product

import click
import pytest

from predictu_dispatch.cli import main
from predictu_dispatch.commands import advice
from predictu_dispatch.commands.texts import REASONS, failure_text
from predictu_dispatch.core.operator_problems import Problem

STATUSES = (None, 200, 301, 401, 403, 404, 405, 410, 429, 500, 503)
FILLED = {
    "operator_id": "op_1",
    "oldest_request_id": "0199-oldest",
    "unknown_request_id": "0199-unknown",
    "request_id": "0199",
}
COMMANDS = main.list_commands(click.Context(main))
COMMAND = re.compile(r"(?:predictu-dispatch ([a-z]+)(?: \S+)*|systemctl \S+ \S+|journalctl -u \S+)$")


def ends_with_a_command(text: str) -> bool:
    found = COMMAND.search(text.format(**FILLED))
    return found is not None and (found[1] is None or found[1] in COMMANDS)


@pytest.mark.parametrize("problem", Problem)
def test_every_problem_ends_with_a_command_whatever_failed_last(problem: Problem) -> None:
    for reason, status in product([None, "http_503", *REASONS], STATUSES):
        text = advice.on_problem(problem, reason, status)
        assert ends_with_a_command(text), (reason, status, text)


def test_every_entry_of_the_review_list_ends_with_a_command() -> None:
    for state, effect in product(("rejected", "exhausted", "cancelled", "delivered"), ("none", "unknown")):
        for reason in REASONS:
            assert ends_with_a_command(advice.on_review(state, reason, effect)), (state, reason, effect)


@pytest.mark.parametrize(
    ("status", "cause", "helps"),
    [
        (
            301,
            "the operator redirects, HTTP 301",
            "set callback_url in operators/op_1.toml, then: predictu",
        ),
        (401, "the operator refuses our token, HTTP 401", "predictu-dispatch keys public op_1"),
        (403, "the operator refuses our token or our address, HTTP 403", "predictu-dispatch keys public op_1"),
        (404, "the operator has nothing at callback_url, HTTP 404", "correct callback_url in operators/op_1.toml"),
        (405, "callback_url does not accept POST, HTTP 405", "correct callback_url in operators/op_1.toml"),
    ],
)
def test_a_misconfiguration_is_named_by_its_http_code(status: int, cause: str, helps: str) -> None:
    assert failure_text("misconfigured", status, None, None) == cause
    assert helps in advice.after_failure("misconfigured", status).format(**FILLED)
