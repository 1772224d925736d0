"""The command `predictu-dispatch`.

Each verb's module is imported when the verb is used, so that `--help` comes at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click
from typing_extensions import override

_VERBS: Final = {
    "demo": (
        "predictu_dispatch.commands.demo",
        "demo",
        "Show everything at work, with proof that no cent went astray.",
    ),
    "run": ("predictu_dispatch.commands.daemon", "run", "Run the daemon until SIGTERM."),
    "migrate": ("predictu_dispatch.commands.daemon", "migrate", "Bring the database schema up to date."),
    "check": ("predictu_dispatch.commands.config", "check", "Validate all configuration files."),
    "status": ("predictu_dispatch.commands.status", "status", "Show operators, lanes, backlog and what needs review."),
    "top": ("predictu_dispatch.commands.top", "top", "Show the same live, what needs a person first."),
    "show": ("predictu_dispatch.commands.show", "show", "Show the whole life of a callback or a bet."),
    "why": ("predictu_dispatch.commands.why.command", "why", "Explain why a callback is not being sent now."),
    "retry": ("predictu_dispatch.commands.interventions", "retry", "Send again what needs review."),
    "cancel": ("predictu_dispatch.commands.interventions", "cancel", "Take back what was never attempted."),
    "resolve": (
        "predictu_dispatch.commands.interventions",
        "resolve",
        "Take off the review list what was settled by other means.",
    ),
    "pause": ("predictu_dispatch.commands.interventions", "pause", "Send an operator nothing for a while."),
    "resume": ("predictu_dispatch.commands.interventions", "resume", "End an operator's pause."),
    "ping": ("predictu_dispatch.commands.ping", "ping", "Ping an operator through the normal way, with timings."),
    "keys": ("predictu_dispatch.commands.keys", "keys", "Make, rotate and print operators' signing keys."),
    "retain": ("predictu_dispatch.commands.retain", "retain", "Remove what is older than audit_retention_months."),
    "completion": ("predictu_dispatch.commands.completion", "completion", "Print what a shell reads to complete this."),
    "reference-operator": (
        "predictu_dispatch.commands.reference_operator",
        "reference_operator",
        "Run a complete operator's backend to integrate against.",
    ),
}
"""Verb: module, attribute, and the help line, which stands here so that listing the verbs imports none of them."""


class _LazyGroup(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute, _ = _VERBS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in _VERBS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="predictu-dispatch", prog_name="predictu-dispatch")
def main() -> None:
    """Deliver Predictu's callbacks to casino operators: signed, retried, settled and audited.

    Exit codes: 0 fine, 1 failed, 2 bad configuration or usage, 3 the database can't be reached.
    """
