"""Compiles TypeScript programs against the producers' package, as an application would have it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.code_blocks import ROOT

PACKAGE = ROOT / "sql" / "clients" / "typescript"
NAME = "predictu-dispatch-client"

HAS_NODE = shutil.which("node") is not None and (PACKAGE / "node_modules" / "pg").exists()
needs_node = pytest.mark.skipif(
    not HAS_NODE,
    reason="needs node 20 or newer, and its packages: npm ci --prefix sql/clients/typescript",
)


def build_application(folder: Path, sources: Mapping[str, str]) -> Path:
    """Builds the package and an application that imports it; returns the folder of its programs."""
    package, application = folder / "package", folder / "application"
    for part in (package, application / "node_modules"):
        part.mkdir(parents=True)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(PACKAGE / name, package)
    shutil.copytree(PACKAGE / "src", package / "src")
    modules = PACKAGE / "node_modules"
    (package / "node_modules").symlink_to(modules)
    for module in modules.iterdir():
        (application / "node_modules" / module.name).symlink_to(module)
    (application / "node_modules" / NAME).symlink_to(package)
    (application / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    options = json.loads((PACKAGE / "tsconfig.json").read_text(encoding="utf-8"))["compilerOptions"]
    (application / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options | {"rootDir": ".", "outDir": "built", "declaration": False}}),
        encoding="utf-8",
    )
    for name, source in sources.items():
        (application / name).write_text(source, encoding="utf-8")
    for part in (package, application):
        compiled = subprocess.run(
            [modules / ".bin" / "tsc", "--project", "."], cwd=part, capture_output=True, text=True, check=False
        )
        assert compiled.returncode == 0, compiled.stdout
    return application / "built"
