"""All services: what may not leave the process, and the list of addresses in the README."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = sorted(DEPLOY.glob("*.service"))
VARIABLES = {"SSLKEYLOGFILE", *("http_proxy", "https_proxy", "all_proxy", "no_proxy")}


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", unit.read_text(encoding="utf-8"))


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_leaves_no_core_dump_writes_no_tls_keys_and_knows_no_proxy(unit: Path) -> None:
    assert len(SERVICES) == 4
    assert values(unit, "LimitCORE") == ["0"]
    [unset] = values(unit, "UnsetEnvironment")
    assert set(unset.split()) == VARIABLES | {name.upper() for name in VARIABLES}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd (apt install systemd)")
def test_systemd_accepts_the_list_of_addresses_in_the_readme(tmp_path: Path) -> None:
    [block] = re.findall(r"(?ms)^```ini\n(.*?)^```$", (DEPLOY / "README.md").read_text(encoding="utf-8"))
    assert "IPAddressDeny=any" in block
    unit = tmp_path / "predictu-dispatch@.service"
    text = (DEPLOY / unit.name).read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/predictu-dispatch/bin/predictu-dispatch", sys.executable), encoding="utf-8")
    drop_in = tmp_path / f"{unit.name}.d"
    drop_in.mkdir()
    (drop_in / "override.conf").write_text(block, encoding="utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],  # noqa: S607 - found on PATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
