"""`dispute`: writes everything about one bet into one file, with proofs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from predictu_dispatch.commands.audit.common import configured_keys, logs_of, reader, refuse
from predictu_dispatch.commands.invocation import Invocation, common_options, unknown_operator
from predictu_dispatch.commands.output import count, print_json, print_wrapped, timestamp
from predictu_dispatch.core.database import INSUFFICIENT_PRIVILEGE, Refused

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.audit_reader import AuditReader
    from predictu_dispatch.evidence.bundle import Request, Summary

_NAME_CHARS_MAX = 60


@click.command()
@click.option("--bet", nargs=2, metavar="OPERATOR BET_ID", required=True, help="The bet.")
@click.option("--without-player", is_flag=True, help="Leave out everything that names the player.")
@click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The log's policy, from `audit policy`; needed where [audit] key_file cannot be read.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to create; default: dispute-OPERATOR-BET_ID.zip.",
)
@common_options
def dispute(
    invocation: Invocation, bet: tuple[str, str], policy: Path | None, output: Path | None, *, without_player: bool
) -> None:
    """Write everything about a bet into one ZIP: what was sent, signed and answered, with proofs.

    Its readers can verify it offline, with predictu_dispatch/verifier or a program of their own;
    its README.txt says how. It holds personal data unless --without-player is given.

    The database login needs the role predictu_auditor.
    """
    from predictu_dispatch.evidence.bundle import Request  # noqa: PLC0415 - loaded only where used

    target = output or Path(f"dispute-{_safe(bet[0])}-{_safe(bet[1])}.zip")
    request = Request(
        operator_id=bet[0],
        bet_id=bet[1],
        is_without_player=without_player,
        policy=b"",
        made_by=version("predictu-dispatch"),
    )
    request, summary = asyncio.run(_write(invocation, request, target, policy))
    if invocation.json:
        print_json({"file": str(target), "has_policy": bool(request.policy), **summary.as_dict()})
        return
    for line in _lines(summary, target, has_policy=bool(request.policy)):
        print_wrapped(line)


async def _write(
    invocation: Invocation, request: Request, target: Path, policy: Path | None
) -> tuple[Request, Summary]:
    from predictu_dispatch.commands.dispute.story import story  # noqa: PLC0415 - loads pydantic
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415
    from predictu_dispatch.core.merkle.tiles import ProofError  # noqa: PLC0415
    from predictu_dispatch.evidence.bundle import NoBundleError, write_bundle  # noqa: PLC0415
    from predictu_dispatch.evidence.proofs import NotProvableError  # noqa: PLC0415
    from predictu_dispatch.evidence.stored_zip import StoredZip, ZipTooLargeError  # noqa: PLC0415

    async with reader(invocation) as opened:
        [login] = await opened.fetch("may_read_tokens")
        if not login["may_read"]:
            # Asked first: a bundle whose tokens are all too young would not need the right.
            raise Refused(INSUFFICIENT_PRIVILEGE, "permission denied for function token_of")
        await _require_bet(invocation, opened, request)
        [log, *_] = await logs_of(invocation, opened, request.operator_id)
        request = replace(request, policy=_policy(invocation, log["origin"], request.operator_id, policy))
        try:
            with _new_file(target) as file:
                return request, await write_bundle(opened, StoredZip(file), request, story)
        except (NoBundleError, ZipTooLargeError) as error:
            refuse(invocation, str(error))
        except NotProvableError as error:
            refuse(invocation, f"{error}; no bundle was made: run predictu-dispatch audit verify")
        except (ProofError, NoteError) as error:
            refuse(invocation, f"the log is damaged: {error}; no bundle was made: run predictu-dispatch audit verify")
        except FileExistsError:
            refuse(invocation, f"{target} exists and is not changed; give another file: -o FILE")
        except OSError as error:
            refuse(invocation, f"cannot create {target}: {error.strerror}")


async def _require_bet(invocation: Invocation, opened: AuditReader, request: Request) -> None:
    key = (request.operator_id, request.bet_id)
    if await opened.fetch("show_bet", *key):
        return
    for removed in await opened.fetch("show_removed_bet", *key):
        ended = f"bet {key[1]} of operator {key[0]} ended {removed['state']}"
        refuse(invocation, f"{ended}; retention removed it at {timestamp(removed['removed_at'])}")
    if not await opened.fetch("known_operator", key[0]):
        refuse(invocation, unknown_operator(key[0]))
    refuse(invocation, f"operator {key[0]} has no bet {key[1]}")


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """A new file that only its owner can read; removed if it could not be completed."""
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _policy(invocation: Invocation, origin: str, operator_id: str, path: Path | None) -> bytes:
    """The policy that is given, else the one of this host's configuration; empty without a key."""
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.trusted_keys import read_given_keys  # noqa: PLC0415

    if path is not None:
        try:
            read_given_keys([str(path)])
            return path.read_bytes()
        except (NoteError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            refuse(invocation, f"cannot use the policy {path}: {why}", 2)
    configured = configured_keys(invocation)
    return configured.policy_of(origin, operator_id).encode() if configured.trusted() else b""


def _lines(summary: Summary, target: Path, *, has_policy: bool) -> Iterator[str]:
    yield f"{target}: {summary.bytes:,} bytes, {count(summary.attempts, 'attempt')}, {count(summary.files, 'file')}."
    if summary.unfinished:
        verb = "is" if summary.unfinished == 1 else "are"
        yield f"{count(summary.unfinished, 'callback')} {verb} not final yet; run it again later for the rest."
    if summary.unsealed:
        more = f" and {len(summary.unsealed) - 1} more" if len(summary.unsealed) > 1 else ""
        yield (
            f"Not in the log yet: {summary.unsealed[0]}{more}. Daemons seal every [audit] seal_s seconds (5 by"
            " default); then run it again, and the file proves them too."
        )
    if summary.uncosigned:
        yield (
            f"{count(summary.uncosigned, 'record')} not cosigned by a witness yet: the file proves no time for them."
            " See predictu-dispatch audit status."
        )
    if summary.young_tokens:
        yield (
            f"{count(summary.young_tokens, 'token')} left out: still valid, or valid until less than a minute ago; run"
            " it again in two minutes."
        )
    if summary.withheld:
        yield f"{count(summary.withheld, 'file')} left out because of the player; their hashes are there."
    if not has_policy:
        yield (
            "It has no policy.txt, because this host cannot read [audit] key_file: give --policy FILE, written by"
            " predictu-dispatch audit policy where a daemon runs, or hand that file over separately."
        )
    yield f"To verify it: python -m predictu_dispatch.verifier {target}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:_NAME_CHARS_MAX] or "_"
