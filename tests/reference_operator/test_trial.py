"""`try`: from an empty folder to an operator that can be certified."""

import asyncio
import importlib.metadata
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc.jwk import OKPKey
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from predictu_dispatch.reference_operator.cli import main
from tests.reference_operator.client import KEY, OPERATOR_ID, PACKAGE, START, bet_body, body_of, request_id_of, token_of
from tests.reference_operator.test_witness import LOG

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


@asynccontextmanager
async def trial(
    cwd: Path, *options: str, command: tuple[str, ...] = START, path: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Runs `try` in the folder; yields the line that it prints."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path or str(PACKAGE.parents[1])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, "try", "--listen", "127.0.0.1:0", "--log", "off", *options),
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            yield json.loads(await process.stdout.readline())
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answer(line: dict[str, Any], body: bytes, key: OKPKey) -> Any:
    """Posts a callback of op_throwaway, signed with the key."""
    body = body.replace(OPERATOR_ID.encode(), b"op_throwaway")
    token = token_of(body, key=key, header={"kid": key.thumbprint()}, claims={"sub": "op_throwaway"})
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession() as http,
        http.post(line["url"], data=body, headers=headers, timeout=timeout) as reply,
    ):
        return await reply.json()


def key_in(file: Path) -> OKPKey:
    assert file.stat().st_mode & 0o777 == 0o600
    return OKPKey.import_key(file.read_bytes())


def option(command: list[str], name: str) -> list[str]:
    return [value for given, value in pairwise(command) if given == name]


async def test_it_accepts_both_keys_and_keeps_keys_and_bets_over_a_restart(tmp_path: Path) -> None:
    debit = bet_body("BET_MAKE", "b-1", 1)
    async with trial(tmp_path) as line:
        [key_file] = option(line["certify"], "--key")
        assert (await answer(line, debit, key_in(tmp_path / key_file)))["balance"] == 99_999
        ping = body_of("PING")
        assert await answer(line, ping, key_in(tmp_path / "throwaway.next.pem")) == {"status": "OK"}
        for player in option(line["certify"], "--player"):
            inquiry = body_of("BALANCE", player_id=player, currency="EUR")
            assert (await answer(line, inquiry, key_in(tmp_path / key_file)))["status"] == "OK"
    async with trial(tmp_path) as line:
        rollback = bet_body("BET_ROLLBACK", "b-1", 1, rollback_of=request_id_of(debit))
        assert (await answer(line, rollback, key_in(tmp_path / key_file)))["balance"] == 100_000


async def test_the_certify_line_has_the_statuses_of_the_readme(tmp_path: Path) -> None:
    [block] = re.findall(r"(?m)^    \[statuses\]\n(?:    .*\n)+", README)
    statuses = tomllib.loads(block)["statuses"]
    async with trial(tmp_path, "--amount-format", "decimal", "--algorithm", "RS256", "--folder", "keys") as line:
        command = line["certify"]
    assert command[:4] == ["predictu-dispatch", "certify", "--url", line["url"]]
    assert option(command, "--rejected") == statuses["rejected"]
    assert option(command, "--retry") == statuses["retry"]
    assert option(command, "--amount-format") == ["decimal"]
    assert option(command, "--algorithm") == ["RS256"]
    assert option(command, "--key") == ["keys/throwaway.pem"]
    assert option(command, "--ledger") == [f"{line['url']}/ledger"]


@pytest.mark.parametrize("options", [(), ("--amount-format", "decimal", "--algorithm", "RS256")])
async def test_the_certify_line_can_be_run_as_it_is_printed(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with trial(tmp_path, *options) as line:
        program, *arguments = line["certify"]
        assert program == "predictu-dispatch"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "predictu_dispatch", *arguments),
            *("--only", "connection-ping", "--only", "money-debit", "--only", "signature-next-key"),
            *("--only", "ledger-each-booking-once"),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parents[1])},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert len(re.findall(rb"(?m)^PASSED +[a-z-]+ ", printed)) == 4


async def test_on_a_terminal_it_says_what_to_do_next(tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *START, "try", "--listen", "127.0.0.1:0", "--folder", str(tmp_path), "--log", "off"),
        stdout=theirs,
    )
    os.close(theirs)
    text = ""
    try:
        async with asyncio.timeout(20):
            while "Ctrl-C" not in text:
                text += (await asyncio.to_thread(os.read, terminal, 4096)).decode()
        process.terminate()
        assert await process.wait() == 0
    finally:
        os.close(terminal)
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "player-1 with 1000.00 EUR and player-2 with 1000.00 EUR" in text
    assert "    predictu-dispatch certify \\" in text
    assert f"--key {tmp_path}/throwaway.pem \\" in text


@pytest.mark.parametrize("is_trial", [True, False])
def test_what_keeps_it_from_listening_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_trial: bool
) -> None:
    (tmp_path / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    (tmp_path / "wallet.db-witness.pem").write_text("no key")
    start = ["try", "--folder", str(tmp_path)] if is_trial else ["--operator-id", OPERATOR_ID]
    start += ["--public-key", str(tmp_path / "predictu.pem"), "--database", str(tmp_path / "wallet.db"), "--log", "off"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failures = {
            f"cannot listen on {address}: address in use; choose another one with --listen HOST:PORT": (
                *("--listen", address),
            ),
            f"cannot listen on {address}: address in use; choose another one with --admin-listen HOST:PORT": (
                *("--listen", "127.0.0.1:0", "--admin-listen", address),
            ),
            f"{tmp_path}/wallet.db-witness.pem: ": ("--listen", "127.0.0.1:0", "--log-vkey", LOG.vkey),
        }
        for message, options in failures.items():
            assert main([*start, *options]) == 1
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith(f"reference-operator: {message}")


def test_a_key_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "throwaway.pem").touch()
    assert main(["try", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"reference-operator: {tmp_path}/throwaway.pem: not a private key in PEM; delete it, and a new one is made\n"
    )
    (tmp_path / "a file").touch()
    assert main(["try", "--folder", str(tmp_path / "a file")]) == 1


def installed_for(requirements: list[str]) -> Iterator[Path]:
    """Yields what is installed for these requirements, and for theirs in turn."""
    seen: set[str] = set()
    wanted = requirements.copy()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(requirement.name)
        assert distribution.version in requirement.specifier
        wanted += distribution.requires or []
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        yield from (Path(str(distribution.locate_file(top))) for top in tops)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with a copy of the operator; beside it `packages`, with its requirements only."""
    folder, packages = tmp_path / "wallet", tmp_path / "packages"
    (folder / "reference_operator").mkdir(parents=True)
    for pattern in ("requirements.txt", "*.py", "schema.sql"):  # As the Dockerfile copies it.
        for file in PACKAGE.glob(pattern):
            shutil.copy(file, folder / "reference_operator")
    requirements = (folder / "reference_operator/requirements.txt").read_text(encoding="utf-8").splitlines()
    packages.mkdir()
    for installed in installed_for(requirements):
        (packages / installed.name).symlink_to(installed)
    imported = subprocess.run(
        [sys.executable, "-S", "-c", "import predictu_dispatch"],
        cwd=folder,
        env={"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'predictu_dispatch'" in imported.stderr
    copies = re.findall(
        "(?m)^COPY (.*) /opt/reference_operator/$", (PACKAGE / "Dockerfile").read_text(encoding="utf-8")
    )
    assert copies == ["requirements.txt", "*.py schema.sql"]
    return folder


async def test_a_copy_in_an_empty_folder_needs_only_its_own_requirements(copied: Path) -> None:
    # -S: without the environment's packages, in which this project is.
    isolated = ("-S", "-m", "reference_operator")
    async with trial(copied, command=isolated, path=str(copied.with_name("packages"))) as line:
        key = key_in(copied / "throwaway.pem")
        assert await answer(line, body_of("PING"), key) == {"status": "OK"}
        assert (await answer(line, bet_body("BET_MAKE", "b-1"), key))["status"] == "OK"
