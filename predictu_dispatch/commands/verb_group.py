"""A group of verbs that names the nearest verb after a misspelled one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import click
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from click.shell_completion import CompletionItem

_SUGGESTIONS_MAX: Final = 3
_SIMILARITY_MIN: Final = 0.6
_AFTER_THE_VERB: Final = ("--config", "--json")


class VerbGroup(click.Group):
    """Verbs in the order in which they are added, with suggestions."""

    synonyms: ClassVar[Mapping[str, str]] = {}
    """What somebody may type, and the verb that does it."""
    elsewhere: ClassVar[Mapping[str, Collection[str]]] = {}
    """The verbs of its groups, which somebody may type without the group."""
    without_verb: ClassVar[click.Command | None] = None
    """What the group does if its first word is none of its verbs; its help shows both."""

    @override
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        own = self.without_verb
        if own is not None and args and args[0] not in self.commands:
            if not self._asks_for_help(args, parent):
                return own.make_context(info_name, args, parent, **extra)
            args = ["--help"]
        return super().make_context(info_name, args, parent, **extra)

    @staticmethod
    def _asks_for_help(args: list[str], parent: click.Context | None) -> bool:
        return parent is not None and any(name in args for name in parent.help_option_names)

    @override
    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.without_verb is None:
            super().format_usage(ctx, formatter)
            return
        self.without_verb.format_usage(ctx, formatter)
        formatter.write_usage(ctx.command_path, " ".join(super().collect_usage_pieces(ctx)[1:]), prefix="       ")

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.without_verb is None:
            super().format_options(ctx, formatter)
            return
        self.without_verb.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        own = super().shell_complete(ctx, incomplete)
        if self.without_verb is None or incomplete.startswith("-"):
            return own
        arguments = (one for one in self.without_verb.params if isinstance(one, click.Argument))
        return own + next(arguments).shell_complete(ctx, incomplete)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        verb = next((argument for argument in args if not argument.startswith("-")), "VERB")
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in _AFTER_THE_VERB:
                usage = f"{ctx.command_path} {verb} … {error.option_name}"
                ctx.fail(f"{error.option_name} comes after the verb: {usage}")
            raise

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and name[:1].isalnum() and self.get_command(ctx, name) is None:
            ctx.fail(f"No such command {name!r}.{self._suggestion(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415 - loaded only where used

        if name == "help":
            return f" For help: {ctx.command_path} --help"
        own = self.list_commands(ctx)
        targets = {verb: [verb] for verb in own}
        for word, verb in self.synonyms.items():
            targets.setdefault(word, []).append(verb)
        for group, verbs in self.elsewhere.items():
            for verb in verbs:
                targets.setdefault(verb, []).append(f"{group} {verb}")
        matches = get_close_matches(name.lower(), list(targets), n=_SUGGESTIONS_MAX, cutoff=_SIMILARITY_MIN)
        if matches and matches[0] in own:  # A near verb needs no synonyms: `stauts` is not `start`.
            matches = [match for match in matches if match in own or match not in self.synonyms]
        near = dict.fromkeys(repr(target) for match in matches for target in targets[match])
        return f" Did you mean {' or '.join(near)}?" if near else f" For all: {ctx.command_path} --help"
