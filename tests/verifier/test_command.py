"""The verifier as a program: alone, as nobody, without a network, in 80 columns."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nacl
import pytest

from predictu_dispatch.verifier.cli import main
from tests.verifier.forge import BET, KEY, Forge, Log, canonical, good_bundle, zipped

PACKAGE = Path(main.__code__.co_filename).parent
SITE_PACKAGES = Path(nacl.__file__).parents[1]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_the_folder_imports_itself_the_standard_library_pynacl_and_cryptography() -> None:
    found = {name.partition(".")[0] for path in PACKAGE.glob("*.py") for name in imports_of(path)}
    # `verifier` is the folder's own name after it was copied.
    assert found - sys.stdlib_module_names == {"nacl", "cryptography", "verifier"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    forge = good_bundle()
    forge.finish()
    (tmp_path / "policy.txt").write_bytes(Log().policy)
    return forge.write(tmp_path / "bundle.zip")


def run(*command: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env=environment or dict(os.environ)
    )


@pytest.mark.parametrize("name", ["verifier", "check-bundles 2"])
def test_a_copy_of_the_folder_runs_without_this_project(name: str, bundle: Path) -> None:
    away = bundle.parent / "away"
    shutil.copytree(PACKAGE, away / name, ignore=shutil.ignore_patterns("__pycache__"))
    # A module that is None in sys.modules cannot be imported, as if this project were not there.
    alone = (
        "import runpy, sys; sys.modules['predictu_dispatch'] = None; sys.argv = sys.argv[1:];"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    found = run(sys.executable, "-c", alone, name, str(bundle), cwd=away)
    assert (found.returncode, found.stderr) == (0, "")
    assert "Result: nothing is contradicted" in found.stdout
    plain = run(sys.executable, name, str(bundle), "--policy", str(bundle.parent / "policy.txt"), cwd=away)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "with your policy" in plain.stdout


@pytest.fixture
def away() -> Iterator[Path]:
    """A folder that every user can read; the parents of tmp_path are for its owner only."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become nobody")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_it_runs_as_nobody_in_a_network_namespace_without_routes(bundle: Path, away: Path) -> None:
    """From a copy of the folder, in a folder that it cannot write into."""
    shutil.copytree(PACKAGE, away / "verifier", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(bundle, away)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    python = _python_of_anybody(away)
    if python is None:
        pytest.skip("nobody can neither read this Python nor PyNaCl")
    command = ("unshare", "--net", *nobody, *python, "verifier", "bundle.zip")
    routes = run("unshare", "--net", *nobody, "cat", "/proc/net/route", cwd=away)
    # At most the line of titles.
    assert routes.returncode == 0, routes.stderr
    assert len(routes.stdout.splitlines()) <= 1
    found = run(*command, cwd=away, environment={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"})
    assert (found.returncode, found.stderr) == (0, "")
    assert "Result: nothing is contradicted" in found.stdout


def _python_of_anybody(away: Path) -> tuple[str, ...] | None:
    """A Python that nobody can run, with the two libraries copied beside the folder."""
    libraries = away / "libraries"
    libraries.mkdir()
    for library in ("nacl", "cryptography", "_cffi_backend*", "cffi", "pycparser"):
        for path in SITE_PACKAGES.glob(library):
            if path.is_dir():
                shutil.copytree(path, libraries / path.name)
            else:
                shutil.copy(path, libraries)
    inside = f"import sys, runpy; sys.path.append({str(libraries)!r}); sys.argv = sys.argv[1:]; "
    inside += "runpy.run_path(sys.argv[0], run_name='__main__')"
    for python in dict.fromkeys((os.path.realpath(sys.executable), shutil.which("python3") or "")):
        probe = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c")
        if (
            python
            and run(*probe, f"import sys; sys.path.append({str(libraries)!r}); import nacl", cwd=away).returncode == 0
        ):
            return (python, "-c", inside)
    return None


def test_the_report_fits_80_columns_and_ends_with_what_is_not_proved(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), "--policy", str(bundle.parent / "policy.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Only a word, such as a hash, is longer.
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []
    assert lines[0].startswith(f"Bet {BET} of operator op_abc123")
    assert lines.index("Not proved:") > max(
        number for number, line in enumerate(lines) if "proved:" in line.split(" The")[0] and line.startswith("  ")
    )
    assert lines[-1] == "Result: nothing is contradicted, with your policy."


def test_json_has_every_sentence(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["result"], found["bet_id"], found["policy"]) == ("not contradicted", BET, "bundle")
    assert {each["verdict"] for each in found["statements"]} == {"proved", "our record only"}
    assert found["not_proved"][0].startswith("That the log's key belongs to Predictu")


def test_without_any_policy_the_result_says_how_little_is_proved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = good_bundle()
    del forge.finish()["policy.txt"]
    assert main([str(forge.write(tmp_path / "bundle.zip"))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Not proved: - Whatever is said of the log: its key is not known." in out
    assert out.endswith("without a key of the log: only the signatures on requests are proved.")


def test_what_is_contradicted_or_refused_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge = good_bundle(claims={"method": "BET_WIN"})
    forge.finish()
    path = str(forge.write(tmp_path / "bundle.zip"))
    assert main([path]) == 1
    out = capsys.readouterr().out
    assert "contradicted: The request body was signed with the key" in out
    assert "because the token's method is BET_WIN, and the record's BET_MAKE" in " ".join(out.split())
    assert out.endswith("Result: CONTRADICTED. Do not rely on this bundle.\n")
    assert main([path, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["result"] == "contradicted"

    del forge.files["story.txt"]
    path = str(forge.write(tmp_path / "bundle.zip"))
    assert main([path, "--json"]) == 1
    found = capsys.readouterr()
    assert json.loads(found.out) == {"result": "refused", "file": "story.txt", "reason": "it is missing"}
    assert found.err.startswith("refused: story.txt: it is missing\n")


def test_wrong_usage_is_exit_2(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(Log().policy + b"quorum all\n")
    assert main([]) == 2
    assert main([str(tmp_path / "missing.zip")]) == 2
    assert main([str(tmp_path)]) == 2
    assert main([str(bundle), "--policy", str(tmp_path / "missing.txt")]) == 2
    assert main([str(bundle), "--policy", str(bad)]) == 2
    assert "line 4: there are two quorum lines" in " ".join(capsys.readouterr().err.split())
    assert main(["--help"]) == 0


def test_text_of_a_bundle_does_not_act_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.attempt(
        KEY, reason="\x1b[2J\u202e", instance="host\n  proved: all", body={"params": {"bet_id": "\x1b]0;x\x07"}}
    )
    forge.manifest["bet_id"] = "\x1b]0;x\x07"
    forge.finish()
    assert main([str(forge.write(tmp_path / "bundle.zip"))]) == 0
    out = capsys.readouterr().out
    assert not {each for each in out if not each.isprintable()} - {"\n"}
    assert "\\x1b[2J\\u202e" in out
    assert "\n  proved: all" not in out


def test_no_change_of_a_value_makes_it_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file of JSON, with a value replaced by one of another kind; hashes made to fit."""
    rng = random.Random(5)
    values: list[object] = [None, True, -1, 1 << 62, "", "x", "ÿ" * 300, [], {}, [[]], {"a": 1}, ["entry"]]
    forge = good_bundle()
    good = dict(forge.finish())
    names = [name for name in good if name.endswith(("entry.json", "first_seen.json", "jwk.json", "request.body"))]
    for _ in range(150):
        forge.files = dict(good)
        name = rng.choice([*names, "bundle.json"])
        value = json.loads(canonical(forge.manifest)) if name == "bundle.json" else json.loads(good[name])
        at: object = value
        while isinstance(at, dict | list) and at:
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            inner = at[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.4:
                at[key] = rng.choice(values)
                break
            at = inner
        if name != "bundle.json":
            forge.files[name] = canonical(value)
        path = tmp_path / "bundle.zip"
        path.write_bytes(zipped(forge.files, value if name == "bundle.json" else forge.manifest))
        assert main([str(path)]) in (0, 1)
        capsys.readouterr()
