"""The producers' packages are ordinary ones: they can be built and are typed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.code_blocks import ROOT
from tests.support.typescript import PACKAGE, build_application, needs_node

PYTHON = ROOT / "sql" / "clients" / "python"


def test_the_wheel_of_the_python_package_has_the_module_and_its_types(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=PYTHON,
        check=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if "dist-info" not in name}
    assert files == {"predictu_dispatch_client/__init__.py", "predictu_dispatch_client/py.typed"}


@needs_node
def test_the_typescript_package_exports_what_it_builds(tmp_path: Path) -> None:
    build_application(tmp_path, {"nothing.ts": "export {};"})
    package = tmp_path / "package"
    [entry] = json.loads((package / "package.json").read_text(encoding="utf-8"))["exports"].values()
    assert all((package / file).exists() for file in entry.values())


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
