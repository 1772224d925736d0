"""The support desk: a person who types commands, with a right to read and a configuration folder of their own."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from predictu_dispatch.cli import main


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """Where the person sits; `folder` has a dispatcher.toml that names the database, and no operator's file yet."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "dispatcher.toml"

    def write_operator(self, operator_id: str, text: str) -> None:
        """The folder has this operator's file."""
        file = self.folder / "operators" / f"{operator_id}.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command. In a thread of its own, because a command has its own loop."""
        asked = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--config", str(self.config)])
        if asked.exception is not None and not isinstance(asked.exception, SystemExit):
            raise asked.exception
        return asked.exit_code, asked.stdout, asked.stderr


def command_line_for(folder: Path, dsn: str) -> CommandLine:
    """A desk that reaches the database by this DSN."""
    desk = CommandLine(folder=folder)
    desk.config.write_text(f'[database]\ndsn = "{dsn}"\n', encoding="utf-8")
    return desk
