"""The nightly units: systemd accepts every key, and the services are sandboxed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy"
NAMES = ("predictu-dispatch-retention", "predictu-dispatch-audit", "predictu-dispatch-reconcile@")
EXPOSURE_MAX = 1.2

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd (apt install systemd)")


@pytest.fixture(params=NAMES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A service and its timer in a folder, with a program that exists on this machine."""
    name = request.param
    text = (UNITS / f"{name}.service").read_text(encoding="utf-8")
    text, replaced = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text)
    assert replaced == 1
    shutil.copy(UNITS / f"{name}.timer", tmp_path)
    (tmp_path / f"{name}.service").write_text(text, encoding="utf-8")
    return tmp_path / f"{name}.service"


def systemd_analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *arguments],  # noqa: S607 - found on PATH
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_systemd_accepts_every_line(service: Path) -> None:
    """Checks stderr, because systemd-analyze exits with 0 on an unknown key."""
    verified = systemd_analyze("verify", str(service), str(service.with_suffix(".timer")))
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_service_is_sandboxed(service: Path) -> None:
    report = systemd_analyze("security", "--offline=yes", "--no-pager", str(service)).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert exposure, report
    assert float(exposure[1]) <= EXPOSURE_MAX
