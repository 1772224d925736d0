"""The command `predictu-dispatch`; verbs are imported when used, so that `--help` is quick."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click
from typing_extensions import override

from predictu_dispatch.commands.epilogs import add_epilogs
from predictu_dispatch.commands.output import prepare_streams, usage_errors_escaped
from predictu_dispatch.commands.verb_group import VerbGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS: Final = "predictu_dispatch.commands"
_VERBS: Final = {
    "demo": ("standalone", "demo", "Run a complete demo on this machine and check the money."),
    "run": ("daemon", "run", "Run the daemon until SIGTERM."),
    "migrate": ("daemon", "migrate", "Bring the database schema up to date."),
    "check": ("daemon", "check", "Validate all configuration files."),
    "status": ("status", "status", "Show operators, backlog, daemons and what needs review."),
    "top": ("top", "top", "Show the status live, with problems first."),
    "show": ("show", "show", "Show the history of a callback or a bet."),
    "why": ("why.command", "why", "Explain why a callback is not being sent now."),
    "find": ("find.command", "find", "Find bets and callbacks by player, bet, transaction, amount or time."),
    "retry": ("interventions.retry", "retry", "Retry callbacks that need review."),
    "cancel": ("interventions.callbacks", "cancel", "Cancel callbacks that were never attempted."),
    "abandon": ("interventions.callbacks", "abandon", "Stop the retries of callbacks."),
    "resolve": ("interventions.callbacks", "resolve", "Remove callbacks from the review list after manual settlement."),
    "interventions": ("interventions.listing", "interventions", "List what people did."),
    "pause": ("interventions.operators", "pause", "Stop sending to an operator."),
    "resume": ("interventions.operators", "resume", "End an operator's pause."),
    "operator": ("interventions.operators", "operator", "Remove an operator that is gone for good."),
    "ping": ("ping.command", "ping", "Send a PING to an operator, or to all, and show the cause of a failure."),
    "keys": ("keys.command", "keys", "Create, rotate and print operators' signing keys."),
    "audit": ("audit.command", "audit", "Verify the audit against its logs, and prove what it says."),
    "dispute": ("dispute.command", "dispute", "Write everything about a bet into one file, with proofs."),
    "certify": ("certify.command", "certify", "Test an operator's sandbox before its first bet."),
    "statement": ("statement.command", "statement", "Print an operator's debits and credits by accounting day."),
    "reconcile": ("reconcile.command", "reconcile", "Compare our records with an operator's ledger, to the cent."),
    "retain": ("retain", "retain", "Remove history older than audit_retention_months."),
    "currencies": ("currencies", "currencies", "List the currencies, and add further ones such as USDT."),
    "completion": ("standalone", "completion", "Print the completion script for a shell."),
    "reference-operator": ("standalone", "reference_operator", "Run a complete operator backend to integrate with."),
}


class _LazyGroup(VerbGroup):
    synonyms: ClassVar = {
        "start": "run",
        "daemon": "run",
        "validate": "check",
        "list": "status",
        "search": "find",
        "history": "show",
        "explain": "why",
        "unpause": "resume",
        "withdraw": "cancel",
        "rotate": "keys stage",
        "test": "certify",
    }
    elsewhere: ClassVar = {
        "keys": ("new", "public", "stage", "activate", "revert", "retire"),
        "operator": ("retire",),
        "currencies": ("list", "add"),
        "audit": ("verify", "prove", "checkpoint", "key", "policy", "export"),
        "reconcile": ("list", "explain", "accept"),
    }

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        prepare_streams()
        return super().main(*args, **kwargs)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with usage_errors_escaped():
            return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> Any:
        with usage_errors_escaped():
            return super().invoke(ctx)

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute, _ = _VERBS[cmd_name]
        command: click.Command = getattr(import_module(f"{_COMMANDS}.{module}"), attribute)
        add_epilogs(cmd_name, command)
        if ctx.resilient_parsing:
            from predictu_dispatch.commands.completing import complete_operators  # noqa: PLC0415 - only where used

            complete_operators(command)
        return command

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb without importing all of them."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - loaded only where used

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(verb, help=text) for verb, (_, _, text) in _VERBS.items() if verb.startswith(incomplete)]

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in _VERBS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="predictu-dispatch", prog_name="predictu-dispatch")
def main() -> None:
    """Deliver Predictu's callbacks to casino operators: signed, retried, settled and audited.

    Exit codes: 0 success, 1 failed, 2 bad configuration or usage, 3 the database can't be reached.
    """
    # ssl and asyncpg would write the keys of every TLS connection into the file that it names.
    os.environ.pop("SSLKEYLOGFILE", None)
