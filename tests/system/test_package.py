"""The wheel works without the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_built_wheel_contains_its_sql(tmp_path: Path) -> None:
    """An editable install reads `sql/` from the repository, a wheel from its resources."""
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import predictu_dispatch.edge.postgres.sql_files as sql\n"
        "print(sql.__file__); print(*(m.sha256 for m in sql.migrations()), sql.query('claim')[:2])"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    file, versions = found.stdout.splitlines()
    assert file.startswith(str(installed))
    from predictu_dispatch.edge.postgres.sql_files import migrations, query  # noqa: PLC0415 - the editable install, for comparison

    assert versions == " ".join([*(m.sha256 for m in migrations()), query("claim")[:2]])
