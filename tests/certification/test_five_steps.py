"""A newcomer follows reference_operator/CERTIFY.md word for word, to the certificate."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.code_blocks import ROOT, examples

PAGE = "predictu_dispatch/reference_operator/CERTIFY.md"
TIMEOUT_S = 300.0
"""The whole suite takes 75 s or more, and the machine may be busy."""
_BLOCK = "----- block"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("node", "openssl", "bash"))),
    reason="node or openssl missing; on Debian: apt install nodejs openssl",
)


def test_only_the_first_block_has_places_of_the_reader() -> None:
    first, *others = [example.code for example in examples(PAGE) if example.language == "sh"]
    assert re.findall(r"\$\{(\w+):-", first) == ["STARTER", "OPERATOR_ID", "LISTEN"]
    assert not [other for other in others if re.search(r"\$\{\w+:-|/home/|/path/", other)]


@pytest.fixture
def walked(tmp_path: Path) -> Iterator[list[str]]:
    """Runs all blocks in one shell; returns what each printed. Ends what the shell leaves."""
    # pytest ends a test that lasts longer than usual; this one lasts as long as its pauses.
    faulthandler.dump_traceback_later(TIMEOUT_S + 30, exit=True)
    blocks = [example.code for example in examples(PAGE) if example.language == "sh"]
    script = "set -eu -o pipefail\n" + "".join(f"echo '{_BLOCK}'\n{block}" for block in blocks)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTU_")}
    # An address of its own instead of a free port, which another test may take meanwhile.
    address = ".".join(["127", *(str(1 + secrets.randbelow(250)) for _ in range(3))])
    given = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "STARTER": str((ROOT / PAGE).parent),
        "LISTEN": f"{address}:8080",
    }
    shell = subprocess.Popen(
        ["bash", "-c", script],  # noqa: S607 - the reader's bash
        cwd=tmp_path,
        env=kept | given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=TIMEOUT_S)
        assert shell.returncode == 0, printed
        yield printed.split(f"{_BLOCK}\n")[1:]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def shown_after_each_block() -> list[list[str]]:
    """Returns the indented lines that follow each block of the page: what a reader should see."""
    parts = re.split(r"^```sh\n.*?^```$", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [[line for line in part.splitlines() if line.startswith("    ")] for part in parts[1:]]


def without_numbers(line: str) -> str:
    """Returns the line with # for each word that differs between two runs."""
    return " ".join("#" if any(map(str.isdigit, word)) else word for word in line.split())


def test_the_page_leads_from_an_empty_folder_to_a_verified_certificate(walked: list[str], tmp_path: Path) -> None:
    for shown, printed in zip(shown_after_each_block(), walked, strict=True):
        seen = [*map(without_numbers, printed.splitlines())]
        assert [line for line in shown if without_numbers(line) not in seen] == [], printed
    _, vectors, listening, groups, _, _, certified, verified = walked
    assert re.fullmatch(r"(\d+) of \1 cases as expected\n", vectors)
    assert json.loads(listening)["event"] == "operator.listening"
    assert re.search(r" skipped\nPASSED\n", groups)
    assert re.search(r" skipped\nPASSED\n", certified)
    folder = tmp_path / "my-wallet"
    [unsigned] = (folder / "certify-reports").glob("2*")
    [signed] = (folder / "certified").glob("2*")
    files = {path.name for path in unsigned.iterdir()}
    assert files == {path.name for path in signed.iterdir()} - {"certificate.note"}
    assert files >= {"report.json", "index.html", "junit.xml"}
    note = (signed / "certificate.note").read_text(encoding="utf-8")
    assert note in certified
    assert "op_abc123" in verified
    bets = [json.loads(line) for line in (folder / "wallet.ndjson").read_text(encoding="utf-8").splitlines()]
    booked = [int(entry["delta"]["n"]) for entry in bets if "delta" in entry]
    assert sum(booked) == 2 * 100_000  # The two deposits: every bet of both runs was undone.
