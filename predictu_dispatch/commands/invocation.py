"""A command's options, configuration and database connection, and how it ends early."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, NoReturn, ParamSpec, TypeVar
from uuid import UUID

import click

from predictu_dispatch.commands.output import Row, print_error, print_json, timestamp
from predictu_dispatch.core.database import (
    INSUFFICIENT_PRIVILEGE,
    NOTIFICATION_QUEUE_FULL,
    DatabaseUnavailable,
    DsnError,
    LoginRefused,
    Refused,
)
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.core.settings import DispatcherSettings
    from predictu_dispatch.edge.config.files import ConfigError
    from predictu_dispatch.edge.config.loader import Config

EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2
"""Also click's code for wrong usage."""
EXIT_NO_DATABASE: Final = 3

_BAD_SETTING: Final = ("22023", "42601", "42704")
"""What the server answers to a session whose DSN has an unknown or wrong setting in `options`."""

DEFAULT_CONFIG: Final = "config/dispatcher.toml"
CONFIG_VARIABLE: Final = "PREDICTU_DISPATCH_CONFIG"

_READS: Final = "predictu_support or predictu_operations"
_ACTS: Final = "predictu_operations"
_AUDITS: Final = "predictu_auditor, predictu_support or predictu_operations"
_RECONCILES: Final = "predictu_reconciler, predictu_support, predictu_operations or predictu_auditor"
_NEEDED_ROLES: Final = {
    "run": "the role predictu_dispatcher",
    "migrate": "to own the schema predictu_dispatch, and CREATEROLE while one of its roles is missing",
    "status": f"the role {_READS}",
    "top": f"the role {_READS}",
    "why": f"the role {_READS}",
    "find": "the role predictu_support, predictu_operations or predictu_auditor",
    "show": "the role predictu_support, predictu_operations or predictu_auditor",
    "retry": f"the role {_ACTS}",
    "cancel": f"the role {_ACTS}",
    "abandon": f"the role {_ACTS}",
    "resolve": f"the role {_ACTS}",
    "interventions": "the role predictu_support, predictu_operations or predictu_auditor",
    "operator retire": f"the role {_ACTS}",
    "pause": f"the role {_ACTS}",
    "resume": f"the role {_ACTS}",
    "ping": f"the role {_ACTS}",
    "keys retire": f"the role {_ACTS}",
    "audit status": f"the role {_AUDITS}",
    "audit verify": "the role predictu_auditor",
    "audit prove": f"the role {_AUDITS}",
    "audit checkpoint": f"the role {_AUDITS}",
    "audit policy": f"the role {_AUDITS}",
    "audit export": f"the role {_AUDITS}",
    "reconcile": "the role predictu_reconciler",
    "reconcile list": f"the role {_RECONCILES}",
    "reconcile show": f"the role {_RECONCILES}",
    "reconcile explain": "the role predictu_reconciler",
    "reconcile accept": "the role predictu_reconciler",
    "retain": "the role predictu_retention",
    "dispute": "the role predictu_auditor",
    "statement": f"the role {_RECONCILES}",
    "currencies list": "the role predictu_support, predictu_operations or predictu_auditor",
    "currencies add": "to own the schema predictu_dispatch, as the login that runs `migrate` does",
}
"""What the database login of each verb needs."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The options that every command has."""

    config: Path
    json: bool
    is_default_config: bool
    """True if neither --config nor its variable was given."""

    @property
    def is_without_config(self) -> bool:
        """True if this host has no configuration: a command that needs only the database works."""
        return self.is_default_config and not os.path.lexists(self.config)

    def load(self) -> Config:
        """Read the whole configuration; exit 2 with every fault if it has any."""
        from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415 - loaded only where used
        from predictu_dispatch.edge.config.loader import load_config  # noqa: PLC0415

        try:
            return load_config(self.config, os.environ)
        except ConfigError as error:
            self.refuse(error)

    def dispatcher(self, *, needs_file: bool = True) -> DispatcherSettings:
        """Read dispatcher.toml only: an operator's faulty file does not stop the command.

        Without `needs_file`, the default file may be missing if the environment has the DSN.
        """
        from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
        from predictu_dispatch.edge.config.loader import read_dispatcher  # noqa: PLC0415 - loaded only where used

        try:
            return read_dispatcher(self.config, os.environ, needs_file=needs_file or not self.is_default_config)
        except ConfigError as error:
            self.refuse(error)

    def refuse(self, error: ConfigError) -> NoReturn:
        """Exit 2 with every fault on its own line on stderr, and with --json all on stdout too."""
        if self.json:
            print_json({"ok": False, "faults": [asdict(fault) for fault in error.faults]})
        for fault in error.faults:
            print_error(str(fault))
        sys.exit(EXIT_MISCONFIGURED)


def fail(message: str, code: int = EXIT_FAILED, *, hint: str = "") -> NoReturn:
    """Print the message on stderr and exit."""
    print_error(message, hint)
    sys.exit(code)


def common_options(command: Callable[Concatenate[Invocation, _P], _R]) -> Callable[_P, _R]:
    """Add `--config` and `--json`, and call the command with an Invocation made of them."""
    return config_option(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command))


def config_option(command: Callable[Concatenate[Invocation, _P], _R]) -> Callable[_P, _R]:
    """Add `--config` only: for a command that prints nothing, or its own `--json`."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=DEFAULT_CONFIG,
        show_default=True,
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        help="Path of dispatcher.toml; the operators' files are in the folder operators/ beside it.",
    )
    @functools.wraps(command)
    def with_invocation(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        config = kwargs.pop("config_path")
        as_json = kwargs.pop("as_json", False)
        assert isinstance(config, Path)  # noqa: S101 - click converted it
        source = click.get_current_context().get_parameter_source("config_path")
        is_default = source is click.core.ParameterSource.DEFAULT
        return command(Invocation(config=config, json=bool(as_json), is_default_config=is_default), *args, **kwargs)

    return with_invocation


if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database


def dsn_of(invocation: Invocation) -> str:
    """The database's DSN."""
    return invocation.dispatcher(needs_file=False).database.dsn.get_secret_value()


@asynccontextmanager
async def database(invocation: Invocation) -> AsyncIterator[Database]:
    """The open database; ends the command if it cannot be reached or has another schema.

    A statement that gets no answer within 10 s ends it too, and names the sessions that block it.
    """
    import asyncio  # noqa: PLC0415 - loaded only where used

    import structlog  # noqa: PLC0415

    from predictu_dispatch.edge.postgres.database import Database  # noqa: PLC0415

    # The command prints what failed, so the log events of the daemon's modules are dropped.
    structlog.configure(processors=[_drop])

    # `through_pooler`: behind a transaction-pooling proxy, the next command would get a session
    # that already has a prepared statement of the same name.
    opened = Database(
        dsn_of(invocation), pool_size=1, application_name="predictu-dispatch command", through_pooler=True
    )
    with exit_on_database_errors(invocation):
        watching: asyncio.Task[None] | None = None
        try:
            await opened.open()
            watching = asyncio.create_task(opened.lock_watch.run(), name="lock watch")
            yield opened
        except DatabaseUnavailable as error:
            blocked = opened.lock_watch.blocked()
            if blocked is None or not error.has_timed_out:
                raise
            hint = "To end these sessions, see PredictuDatabaseBlocked in deploy/runbook.md."
            fail(f"the database did not answer in time: {blocked}", EXIT_NO_DATABASE, hint=hint)
        finally:
            if watching is not None:
                watching.cancel()
            await opened.close()


def _drop(*_: object) -> NoReturn:
    from structlog import DropEvent  # noqa: PLC0415 - loaded only where used

    raise DropEvent


@contextmanager
def exit_on_database_errors(invocation: Invocation) -> Iterator[None]:
    """End the command on a database error: exit 3 if unreachable, 2 for a bad DSN, 1 otherwise."""
    from predictu_dispatch.edge.config.loader import DSN_VARIABLE  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.postgres.migrations import SchemaError  # noqa: PLC0415

    if os.environ.get(DSN_VARIABLE):
        check = f"check {DSN_VARIABLE} in the environment"
    else:
        check = f"check [database] dsn in {invocation.config}"
    try:
        yield
    except SchemaError as error:
        fail(str(error))
    except DsnError as error:
        fail(f"invalid DSN ({error}); {check}", EXIT_MISCONFIGURED)
    except DatabaseUnavailable as error:
        if error.sqlstate == NOTIFICATION_QUEUE_FULL:
            fail(
                "the server's notification queue is full; nothing was changed; try again, or see"
                " PredictuNotificationQueueFilling in deploy/runbook.md",
                EXIT_NO_DATABASE,
            )
        fail(f"the database can't be reached ({error}); {check}", EXIT_NO_DATABASE)
    except Refused as error:
        if error.sqlstate == INSUFFICIENT_PRIVILEGE:
            fail(f"the database refused: {error.message}", hint=error.hint or _needed_role())
        if isinstance(error, LoginRefused):
            if error.sqlstate in _BAD_SETTING:
                fail(f"the database refused a parameter of the DSN: {error.message}; {check}", EXIT_MISCONFIGURED)
            fail(f"the database refused the login: {error.message}; {check}", EXIT_NO_DATABASE)
        fail(f"the database refused: {error}", hint=error.hint)


def _needed_role() -> str:
    """What the login of the running command needs."""
    verb = _verb()
    needed = _NEEDED_ROLES.get(verb, "another role")
    return f"The login of `predictu-dispatch {verb}` needs {needed}; see Roles in sql/README.md."


def _verb() -> str:
    """The running verb, such as `status` or `keys retire`."""
    context = click.get_current_context(silent=True)
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(names) or (context and context.info_name) or "this command"


async def the_one(db: Database, rows: Sequence[Row], request_id: UUID, operator: str | None) -> Row:
    """The only row; ends the command if there is none, or if several operators have this id."""
    if len(rows) != 1:
        fail(await why_not_one(db, [row["operator_id"] for row in rows], request_id, operator))
    return rows[0]


async def why_not_one(db: Database, owners: Sequence[str], request_id: UUID, operator: str | None) -> str:
    """Why the id names no single callback: ambiguous, removed by retention, or unknown."""
    if owners:
        return f"several operators have {request_id}; add --operator {' | '.join(owners)}"
    for removed in await db.fetch(query("show_removed"), request_id, operator):
        name = f"{removed['method']} {request_id} of operator {removed['operator_id']}"
        return f"{name} ended {removed['state']}; retention removed it at {timestamp(removed['removed_at'])}"
    if operator is None:
        return f"no callback {request_id}"
    if await is_unknown(db, operator):
        return f"no callback {request_id}: {unknown_operator(operator)}"
    return f"no callback {request_id} of operator {operator}"


async def is_unknown(db: Database, operator: str) -> bool:
    """True if no daemon ever had this operator's file."""
    return not await db.fetch(query("known_operator"), operator)


def unknown_operator(operator: str) -> str:
    """The message about such an operator."""
    return f"unknown operator {operator}; predictu-dispatch status lists them"
