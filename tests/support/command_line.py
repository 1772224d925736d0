"""Runs our commands as a person does, with a configuration folder of their own."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from predictu_dispatch.cli import main


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """Commands with `folder` as configuration: a dispatcher.toml that names the database."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "dispatcher.toml"

    def write_operator(self, operator_id: str, text: str) -> None:
        """Writes this operator's file into the folder."""
        file = self.folder / "operators" / f"{operator_id}.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Returns exit code, stdout and stderr.

        The command runs in a thread: it has its own loop.
        """
        result = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--config", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    async def run_json(self, *arguments: str) -> tuple[int, Any]:
        """Returns exit code and JSON output."""
        code, stdout, _ = await self.run(*arguments, "--json")
        return code, json.loads(stdout)

    def process(self, *arguments: str) -> list[str]:
        """Returns the command line of a separate process."""
        return [sys.executable, "-m", "predictu_dispatch", *arguments, "--config", str(self.config)]


def command_line_for(folder: Path, dsn: str) -> CommandLine:
    """Returns a command line whose dispatcher.toml has this DSN."""
    command_line = CommandLine(folder=folder)
    command_line.config.write_text(f'[database]\ndsn = "{dsn}"\n', encoding="utf-8")
    return command_line


def one_line(text: str) -> str:
    """The text without its line ends."""
    return " ".join(text.split())
