"""Rotating a signing key under load, with kills and concurrent reads at any step."""

import asyncio
import hashlib
import itertools
import json
import os
import shutil
import signal
import stat
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import aiohttp
import jwt
import pytest
from aiohttp import web

from predictu_dispatch.edge.config.keys import create_key_file, read_keys
from predictu_dispatch.edge.config.operator_file import read_operator
from predictu_dispatch.edge.config.rotation import KeyRotation, RotationRefusedError
from tests.support.command_line import command_line_for
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR
from tests.support.operators import receiving
from tests.support.postgres import Database

FILE_STEPS = frozenset({"open", "os.link", "os.rename", "os.remove", "os.chmod", "os.chown"})
"""The audit events that Python raises before it touches a file. Source: PEP 578."""


@pytest.fixture
def rotation(tmp_path: Path) -> KeyRotation:
    """An operator's file and its active key."""
    (tmp_path / "op_a.toml").write_text(
        'operator_id = "op_a"\ncallback_url = "https://h/"\n[signing]\nkey_file = "keys/op_a.pem"\n'
    )
    create_key_file(tmp_path / "keys" / "op_a.pem", "EdDSA")
    return KeyRotation(operator_id="op_a", active_file=tmp_path / "keys" / "op_a.pem", algorithm="EdDSA")


def published(rotation: KeyRotation) -> list[str]:
    """The key_ids a daemon would publish that loads the files now, the one it signs with first.

    No fault is allowed.
    """
    file = rotation.active_file.parent.parent / "op_a.toml"
    return [key.kid for key in read_operator(file, {}).published_keys]


def key_ids(rotation: KeyRotation) -> dict[str, str]:
    """The key_id of each existing file, by role."""
    found, wrong = read_keys(rotation.active_file, "EdDSA")
    assert wrong == {}
    return {role.value: key.kid for role, key in found.items()}


def in_a_child(folder: Path, step: int, *, then: Callable[[], object], play: Callable[[], bool]) -> int:
    """A process of its own plays.

    Right before its `step`-th touch of a file in the folder, `then` happens.

    Returns the wait status: 0 if it succeeded, 1 if it failed, 2 if it had fewer steps.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        # Nothing of the parent's is open or locked in here, and it ends below whatever happens.
        steps = itertools.count(1)
        has_happened = False

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal has_happened
            # A descriptor is one of ours as well: nothing else is open here.
            is_ours = event in FILE_STEPS and (
                isinstance(arguments[0], int) or str(arguments[0]).startswith(str(folder))
            )
            if is_ours and not has_happened and next(steps) == step:
                has_happened = True
                then()

        sys.addaudithook(watch)
        if play():
            code = 0 if has_happened else 2
    finally:
        os._exit(code)


def copied(rotation: KeyRotation, name: str) -> KeyRotation:
    """A copy of the files in another folder."""
    folder = rotation.active_file.parent.parent
    shutil.copytree(folder, folder.parent / f"{folder.name}-{name}")
    return replace(rotation, active_file=folder.parent / f"{folder.name}-{name}" / "keys" / "op_a.pem")


def play(rotation: KeyRotation, verb: str) -> object:
    """Runs the verb; `retire` without the checks of the command."""
    return rotation.retire(rotation.retirable()) if verb == "retire" else getattr(rotation, verb)()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refusal_of(verb: Callable[[], object]) -> str | None:
    """The message of the refusal, or None if the verb succeeded."""
    try:
        verb()
    except RotationRefusedError as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize("verb", ["stage", "activate", "revert", "retire"])
def test_after_a_kill_at_any_step_the_files_load_and_a_second_run_completes(rotation: KeyRotation, verb: str) -> None:
    [a] = published(rotation)
    b = a if verb == "stage" else rotation.stage().kid
    if verb in {"revert", "retire"}:
        rotation.activate()
    always = {a, b} if verb in {"activate", "revert"} else {b}
    ends = {
        "stage": ["active", "staged"],
        "activate": ["active", "previous"],
        "revert": ["active", "staged"],
        "retire": ["active"],
    }[verb]
    has_ended = {
        "stage": "is staged already",
        "activate": f"{b} is active, key {a} is the previous one",
        "revert": f"{a} is active, key {b} is staged",
        "retire": "nothing to retire",
    }
    left: list[dict[str, str]] = []
    for step in itertools.count(1):
        tried = copied(rotation, str(step))
        run = partial(play, tried, verb)
        status = in_a_child(tried.active_file.parent.parent, step, then=die, play=lambda run=run: bool(run()))  # type: ignore[misc]
        # A daemon may load the files now.
        loaded = published(tried)
        assert len({*loaded}) == len(loaded)
        assert always <= {*loaded}
        left.append(key_ids(tried))
        # It succeeds now, or says that it had already completed.
        refusal = refusal_of(run)
        assert refusal is None or (list(left[-1]) == ends and has_ended[verb] in refusal)
        assert list(key_ids(tried)) == ends
        assert key_ids(tried)["active"] == (a if verb == "revert" else b)
        if os.WIFEXITED(status):
            assert os.waitstatus_to_exitcode(status) == 2
            break
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    # All intermediate states were reached, also those between two steps.
    assert len({tuple(state) for state in left}) == (3 if verb in {"activate", "revert"} else 2)


def test_an_interrupted_step_is_named_by_the_other_verbs(rotation: KeyRotation) -> None:
    """An interrupted activate is completed or undone; an interrupted revert is completed."""
    [a] = published(rotation)
    b = rotation.stage().kid
    folder = rotation.active_file.parent
    os.link(rotation.active_file, folder / "op_a.previous.pem")
    assert "an activate was interrupted; to complete it: predictu-dispatch keys activate op_a" in str(
        refusal_of(rotation.retirable)
    )
    assert [key.kid for key in rotation.revert()] == [a, b]
    assert key_ids(rotation) == {"active": a, "staged": b}

    rotation.activate()
    os.link(rotation.active_file, folder / "op_a.next.pem")
    for verb in (rotation.stage, rotation.activate, rotation.retirable):
        assert refusal_of(verb) == (
            f"a revert to key {a} was interrupted; to complete it: predictu-dispatch keys revert op_a"
        )
    assert [key.kid for key in rotation.revert()] == [a, b]
    assert key_ids(rotation) == {"active": a, "staged": b}


def test_each_step_is_synced_to_disk_before_the_next(rotation: KeyRotation, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, folder = os.fsync, rotation.active_file.parent
    synced: list[str] = []

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(" ".join(key_ids(rotation)) if is_folder else "a file")

    monkeypatch.setattr(os, "fsync", watched)
    rotation.stage()
    assert synced == ["a file", "active staged"]
    # The staged file is synced again, because it may not come from `stage`.
    rotation.activate()
    assert synced[2:] == ["a file", "active staged previous", "active previous"]
    rotation.revert()
    assert synced[5:] == ["active staged previous", "active staged"]
    rotation.activate()
    synced.clear()
    play(rotation, "retire")
    assert synced == ["active"]
    assert [path.name for path in folder.iterdir()] == ["op_a.pem"]


def test_keys_that_changed_since_they_were_checked_are_not_removed(rotation: KeyRotation) -> None:
    """Another person reverts and activates between the check and the removal."""
    rotation.stage()
    rotation.activate()
    checked = rotation.retirable()
    rotation.revert()
    rotation.activate()
    before = key_ids(rotation)
    assert "another rotation changed the keys meanwhile" in str(refusal_of(lambda: rotation.retire(checked)))
    assert key_ids(rotation) == before
    rotation.retire(rotation.retirable())


@pytest.mark.parametrize("verb", ["activate", "revert"])
def test_a_reader_during_a_rotation_finds_both_keys(rotation: KeyRotation, verb: str) -> None:
    both = {published(rotation)[0], rotation.stage().kid}
    if verb == "revert":
        rotation.activate()
    codes = [0]
    while codes[-1] == 0:
        tried = copied(rotation, str(len(codes)))
        folder = tried.active_file.parent.parent

        def misses_neither(tried: KeyRotation = tried) -> bool:
            return {*published(tried)} == both

        status = in_a_child(folder, len(codes), then=partial(play, tried, verb), play=misses_neither)
        codes.append(os.waitstatus_to_exitcode(status))
    # The operator's file, and the existing ones of three key files, each at least twice.
    assert codes[1:] == [0] * (len(codes) - 2) + [2]
    assert len(codes) > 6


@dataclass(kw_only=True)
class Verifier:
    """An operator that fetches the published keys if it does not know a token's kid."""

    session: aiohttp.ClientSession
    url: str = ""
    sources: list[Daemon] = field(default_factory=list)
    known: dict[str, jwt.PyJWK] = field(default_factory=dict)
    kids: list[str] = field(default_factory=list)
    """The kid of each valid token, in the order of arrival."""
    refusals: list[str] = field(default_factory=list)

    async def fetch(self) -> None:
        """It knows the keys that are published now, and no others.

        It asks one daemon after the other.
        """
        self.sources.append(source := self.sources.pop(0))
        async with self.session.get(f"{source.url}/keys/{OPERATOR}.json") as response:
            published = await response.json()
        self.known = {key["kid"]: jwt.PyJWK.from_dict(key) for key in published["keys"]}

    async def receive(self, http: web.Request) -> web.Response:
        token = http.headers["Authorization"].removeprefix("Bearer ")
        kid = jwt.get_unverified_header(token)["kid"]
        if kid not in self.known:
            await self.fetch()
        try:
            jwt.decode(token, self.known[kid], algorithms=["EdDSA"])
        except (KeyError, jwt.InvalidTokenError) as fault:
            self.refusals.append(f"{kid}: {fault!r}")
            return web.json_response({"status": "UNAUTHORIZED"}, status=401)
        self.kids.append(kid)
        return web.json_response({"status": "OK", "balance": 1, "transaction_id": f"tx-{len(self.kids)}"})

    async def gets(self, what: str, is_enough: Callable[[list[str]], bool]) -> None:
        """Waits until the tokens from now on satisfy `is_enough`."""
        begin = len(self.kids)
        await until(f"tokens come in: {what}", lambda: is_enough(self.kids[begin:]))


@asynccontextmanager
async def running_verifier(session: aiohttp.ClientSession) -> AsyncIterator[Verifier]:
    verifier = Verifier(session=session)
    async with receiving(verifier.receive) as verifier.url:
        yield verifier


async def play_bets(environment: Environment, verifier: Verifier, stop: asyncio.Event) -> int:
    """Bets are placed and won, some dozen on their way at any time, until `stop`.

    Returns how many there were.
    """
    count = 0
    while not stop.is_set():
        count += 1
        await environment.harness.place(f"b-{count}")
        await environment.harness.end("BET_WIN", f"b-{count}")
        enough = 2 * count - 50
        await until("the operator keeps up", lambda enough=enough: len(verifier.kids) >= enough)  # type: ignore[misc]
    return count


async def reload(daemon: Daemon) -> None:
    """Reloads the daemon without a fault."""
    times = len(daemon.lines("config.reloaded")) + 1
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until_logged("config.reloaded", times=times)
    line = daemon.lines("config.reloaded")[-1]
    assert (line["kept"], line["faults"]) == ([], 0)


async def until_reported(environment: Environment, instance: str, kid: str) -> None:
    """Waits until the database knows that this daemon signs with this key."""

    async def is_reported() -> bool:
        keys: str | None = await environment.harness.person.fetchval(
            "select signing_keys #>> array[$2, 'key_id'] from predictu_dispatch.daemon where instance = $1",
            *(instance, OPERATOR),
        )
        return keys == kid

    await until(f"{instance} reports its key", is_reported)


async def test_a_key_rotation_under_load_refuses_no_request(  # noqa: PLR0915 - one story
    environment: Environment, database: Database
) -> None:
    """Two daemons that reload one after the other, so that for a while both keys sign.

    `retire` refuses as long as somebody may need the old key.
    """
    cli = command_line_for(environment.fleet.folder, database.operations)

    async def rotate(verb: str) -> None:
        code, _, stderr = await cli.run("keys", verb, OPERATOR)
        assert code == 0, stderr

    async def refusal() -> str:
        code, _, stderr = await cli.run("keys", "retire", OPERATOR)
        assert code == (1 if stderr else 0)
        return " ".join(stderr.split())

    async def tokens_have_expired() -> bool:
        return "its last tokens may be valid" not in await refusal()

    published: dict[str, dict[str, str]] = {}

    async def published_by(daemon: Daemon) -> list[str]:
        async with environment.fleet.session.get(f"{daemon.url}/keys/{OPERATOR}.json") as response:
            keys = (await response.json())["keys"]
        published.update({key["kid"]: key for key in keys})
        return [key["kid"] for key in keys]

    async with running_verifier(environment.fleet.session) as verifier:
        environment.fleet.write_operator(verifier.url, signing={"token_ttl_s": 5})
        first, second = [environment.fleet.spawn(instance) for instance in ("host-1", "host-2")]
        for daemon in (first, second):
            await daemon.ready()
        verifier.sources = [first, second]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            bets = tasks.create_task(play_bets(environment, verifier, stop), name="bets")
            await verifier.gets("some", lambda kids: len(kids) >= 50)
            [a] = await published_by(first)

            await rotate("stage")
            await reload(first)
            await reload(second)
            _, b = await published_by(first)
            assert await published_by(first) == await published_by(second) == [a, b]
            await verifier.gets("of the old key only", lambda kids: len(kids) >= 50)
            assert {*verifier.kids} == {a}

            await rotate("activate")
            for instance in ("host-1", "host-2"):
                assert f"daemon {instance} still signs with it" in await refusal()
            await reload(first)
            await until_reported(environment, "host-1", b)
            assert "daemon host-1" not in await refusal()
            await verifier.gets("of both keys, from one daemon each", lambda kids: min(map(kids.count, (a, b))) >= 10)
            await reload(second)
            assert await published_by(first) == await published_by(second) == [b, a]
            await verifier.gets("of the new key only", lambda kids: kids[-100:] == [b] * 100)

            await until_reported(environment, "host-2", b)
            await until("the last tokens expire", tokens_have_expired)
            assert f"no PING was signed with the active key {b} yet" in await refusal()
            assert (await cli.run("ping", OPERATOR))[0] == 0
            assert await refusal() == ""
            await reload(first)
            await reload(second)
            assert await published_by(first) == await published_by(second) == [b]
            # The operator would now refuse a token of the old key.
            await verifier.fetch()
            await verifier.gets("some more", lambda kids: len(kids) >= 100)
            stop.set()
        await environment.until_all_final()

    assert verifier.refusals == []
    # And one PING.
    assert await environment.states() == {"delivered": 2 * bets.result() + 1} == {"delivered": len(verifier.kids)}
    rows = await environment.harness.owner.fetch(
        "select distinct attempt, verdict, response_status, key_id from predictu_dispatch.attempt"
    )
    assert {tuple(row) for row in rows} == {(1, "delivered", 200, a), (1, "delivered", 200, b)}
    await every_token_can_be_verified(environment, published, retired=a)


async def every_token_can_be_verified(
    environment: Environment, published: dict[str, dict[str, str]], *, retired: str
) -> None:
    """With the stored keys, which are those that were published, also once a key is retired."""
    owner = environment.harness.owner
    stored = {row["kid"]: row for row in await owner.fetch("select * from predictu_dispatch.signing_key")}
    assert {kid: json.loads(row["public_jwk"]) for kid, row in stored.items()} == published
    assert {kid for kid, row in stored.items() if row["retired_at"] is not None} == {retired}
    keys = {kid: jwt.PyJWK(json.loads(row["public_jwk"])).key for kid, row in stored.items()}
    for row in await owner.fetch("select * from predictu_dispatch.attempt_record"):
        authorization = json.loads(row["request_headers"])["Authorization"]
        signature = urlsafe_b64encode(row["token_signature"]).decode().rstrip("=")
        token = authorization.removeprefix("Bearer ").replace("[signature withheld]", signature)
        claims = jwt.decode(token, keys[row["key_id"]], algorithms=["EdDSA"], options={"verify_exp": False})
        assert claims["digest"] == hashlib.sha256(row["request_body"].encode()).hexdigest()
        assert stored[row["key_id"]]["first_seen_at"] < row["started_at"]
