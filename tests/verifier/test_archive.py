"""A bundle that was changed in any way is refused, by the name of the file at fault."""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from predictu_dispatch.verifier.archive import RefusedError
from predictu_dispatch.verifier.policy import parse_policy
from predictu_dispatch.verifier.verify import verify
from tests.verifier.forge import Log, good_bundle, zipped

FLIPS = 2_000 if os.environ.get("TEST_SIZE") == "full" else 200
PLACEMENT = "attempts/BET_MAKE_0190a6d1-7c3e-7c11-9a5b-1f0f6a2b9c55_0001"
POLICY = parse_policy(Log().policy)


def good() -> bytes:
    forge = good_bundle()
    return zipped(forge.finish(), forge.manifest)


GOOD = good()


def refused(content: bytes, folder: Path) -> RefusedError | None:
    """The refusal of this archive; None if it is accepted."""
    path = folder / "bundle.zip"
    path.write_bytes(content)
    try:
        report = verify(path, POLICY)
    except RefusedError as error:
        return error
    assert not report.is_contradicted
    return None


def extents(content: bytes) -> Iterator[tuple[str, range]]:
    """Where each file and its line in the directory are."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        ends = [each.header_offset for each in infos[1:]] + [archive.start_dir]
        line = archive.start_dir
        for info, end in zip(infos, ends, strict=True):
            yield info.filename, range(info.header_offset, end)
            yield info.filename, range(line, line := line + 46 + len(info.filename))


def test_a_good_bundle_is_accepted_and_any_program_reads_it(tmp_path: Path) -> None:
    assert refused(GOOD, tmp_path) is None
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "bundle.json"


def wrongly_answered_flips(folder: Path, count: int) -> list[str]:
    """Flips single bits of a bundle; returns those that are accepted, or refused elsewhere."""
    rng = random.Random(7)
    where = list(extents(GOOD))
    order = [name for name, _ in where[::2]]
    wrong = []
    for _ in range(count):
        position, bit = rng.randrange(len(GOOD)), rng.randrange(8)
        content = bytearray(GOOD)
        content[position] ^= 1 << bit
        found = refused(bytes(content), folder)
        names = [name for name, extent in where if position in extent]
        if found is None:
            wrong.append(f"bit {bit} of byte {position} is accepted")
        elif names:
            # Damage of a header is named by the file or its neighbour, damage of a name as it is.
            index = order.index(names[0])
            near = {*order[max(0, index - 1) : index + 2], "bundle.zip"}
            # Damage of a name's length cuts it, or adds what follows it.
            said = found.file.strip("'\"")
            is_cut = names[0].startswith(said) or said.startswith(names[0])
            alike = SequenceMatcher(None, names[0], said, autojunk=False).ratio()
            if not any(said.startswith(name) for name in near) and not is_cut and alike < 0.8:
                wrong.append(f"bit {bit} of byte {position} is refused as {found}")
    return wrong


def test_every_flipped_bit_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    assert wrongly_answered_flips(tmp_path, FLIPS) == []


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for size in sorted(random.Random(3).sample(range(len(GOOD)), FLIPS // 4)):
        assert refused(GOOD[:size], tmp_path) is not None, size


Change = Callable[[dict[str, bytes]], None]


def swapped(first: str, second: str) -> Change:
    def swap(files: dict[str, bytes]) -> None:
        files[first], files[second] = files[second], files[first]

    return swap


def added(name: str) -> Change:
    return lambda files: files.update({name: b"more"})


def removed(name: str) -> Change:
    def remove(files: dict[str, bytes]) -> None:
        del files[name]

    return remove


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (swapped("README.txt", "story.txt"), "README.txt"),
        (swapped(f"{PLACEMENT}/request.body", f"{PLACEMENT}/response.body"), f"{PLACEMENT}/request.body"),
        (swapped(f"{PLACEMENT}/entry.json", f"{PLACEMENT[:-1]}2/entry.json"), f"{PLACEMENT}/entry.json"),
        (removed("story.txt"), "story.txt"),
        (removed(f"{PLACEMENT}/token.jwt"), f"{PLACEMENT}/token.jwt"),
        (added("attempts/extra.txt"), "attempts/extra.txt"),
        (added("zzz"), "zzz"),
    ],
)
def test_a_file_that_bundle_json_does_not_list_so_is_named(change: Change, named: str, tmp_path: Path) -> None:
    """bundle.json stays as it was."""
    forge = good_bundle()
    files = forge.finish()
    whole = zipfile.ZipFile(io.BytesIO(zipped(files, forge.manifest))).read("bundle.json")
    change(files)
    names = sorted(files)
    content = raw_zip([(name, files[name]) for name in names] + [("bundle.json", whole)])
    found = refused(content, tmp_path)
    assert found is not None
    assert found.file == named


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (added("attempts/extra.txt"), "attempts/extra.txt"),
        (added(f"{PLACEMENT}/more.json"), f"{PLACEMENT}/more.json"),
        (added("keys/another/jwk.json"), "keys/another/jwk.json"),
        (removed(f"{PLACEMENT}/request.body"), f"{PLACEMENT}/request.body"),
        (removed(f"{PLACEMENT}/entry.tlog-proof"), f"{PLACEMENT}/entry.tlog-proof"),
        (removed("start/entry.json"), "start/entry.json"),
        (removed("README.txt"), "README.txt"),
        (swapped(f"{PLACEMENT}/entry.json", f"{PLACEMENT[:-1]}2/entry.json"), f"{PLACEMENT}/entry.json"),
        (swapped(f"{PLACEMENT}/entry.json", "start/entry.json"), "start/entry.json"),
    ],
)
def test_a_file_that_does_not_belong_there_is_named_although_bundle_json_lists_it(
    change: Change, named: str, tmp_path: Path
) -> None:
    forge = good_bundle()
    files = forge.finish()
    change(files)
    found = refused(zipped(files, forge.manifest), tmp_path)
    assert found is not None
    assert found.file == named


def test_a_key_cannot_be_left_out(tmp_path: Path) -> None:
    forge = good_bundle()
    files = forge.finish()
    path = forge.manifest["keys"][0]["folder"]
    del files[f"{path}/jwk.json"]
    forge.manifest["keys"][0]["withheld"] = {"jwk.json": "a test"}
    found = refused(zipped(files, forge.manifest), tmp_path)
    assert found is not None
    assert found.file == f"{path}/jwk.json"


def test_a_folder_is_listed_once(tmp_path: Path) -> None:
    forge = good_bundle()
    files = forge.finish()
    forge.manifest["attempts"].append(forge.manifest["attempts"][0])
    found = refused(zipped(files, forge.manifest), tmp_path)
    assert found is not None
    assert (found.file, found.reason) == ("bundle.json", "it lists a folder twice")


def test_the_start_needs_a_proof(tmp_path: Path) -> None:
    forge = good_bundle()
    files = forge.finish()
    del files["start/entry.tlog-proof"]
    forge.manifest["start"]["sealed"] = []
    found = refused(zipped(files, forge.manifest), tmp_path)
    assert found is not None
    assert found.file == "start/entry.tlog-proof"


@pytest.mark.parametrize("kind", ["interventions", "attempts", "keys"])
def test_a_folder_of_another_name_is_refused_or_contradicted(kind: str, tmp_path: Path) -> None:
    forge = good_bundle()
    files = forge.finish()
    element = forge.manifest[kind][0]
    old, new = element["folder"], f"{element['folder'][:-1]}z"
    element["folder"] = new
    moved = {name.replace(f"{old}/", f"{new}/"): content for name, content in files.items()}
    path = tmp_path / "bundle.zip"
    path.write_bytes(zipped(moved, forge.manifest))
    if kind == "keys":
        assert verify(path, POLICY).is_contradicted
        return
    with pytest.raises(RefusedError, match=f"{new}/entry.json"):
        verify(path, POLICY)


def raw_zip(files: list[tuple[str, bytes]], **fields: int) -> bytes:
    """A ZIP of these files in this order, whatever their names; `fields` change each header."""
    value = {"version": 20, "flags": 0, "method": 0, "time": 0, "date": 0x21, "made": 0x314, "mode": 0o100644 << 16}
    value |= fields
    body, directory = bytearray(), bytearray()
    for name, content in files:
        encoded = name.encode()
        common = [value[each] for each in ("version", "flags", "method", "time", "date")]
        common += [zlib.crc32(content), len(content), len(content), len(encoded)]
        line = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", value["made"], *common, 0, 0, 0, 0, value["mode"], len(body))
        directory += line + encoded
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", *common, 0) + encoded + content
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + end)


def parts() -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def with_zipfile(**options: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, content in parts():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=options.get("compression"))
        archive.comment = b"a comment" if options.get("comment") else b""
    return buffer.getvalue()


def with_first(name: str, content: bytes = b"x") -> bytes:
    return raw_zip([(name, content), *parts()])


def changed(position: int, value: bytes) -> bytes:
    return GOOD[:position] + value + GOOD[position + len(value) :]


SECOND = GOOD.index(b"PK\x03\x04", 4)
DIRECTORY = GOOD.index(b"PK\x01\x02")
END = GOOD.index(b"PK\x05\x06")
TRICKS = {
    "compressed": (with_zipfile(compression=zipfile.ZIP_DEFLATED), "README.txt"),
    "written by another program": (with_zipfile(), "README.txt"),
    "a comment": (changed(len(GOOD) - 2, b"\x09\x00") + b"a comment", "bundle.zip"),
    "bytes behind the end": (GOOD + b"\x00", "bundle.zip"),
    "bytes before the beginning": (b"\x00" + GOOD, "bundle.zip"),
    "two archives": (GOOD + GOOD, "bundle.zip"),
    "a second directory": (GOOD[:END] + GOOD[DIRECTORY:], "bundle.zip"),
    "no directory": (GOOD[:DIRECTORY], "bundle.json"),
    "a gap between the files": (GOOD[:SECOND] + b"\x00" + GOOD[SECOND:], "README.txt (the file after it)"),
    "an empty archive": (GOOD[END:], "bundle.zip"),
    "no archive": (b"not a zip", "bundle.zip"),
    "an empty file": (b"", "bundle.zip"),
    "an absolute path": (with_first("/README.txt"), "'/README.txt'"),
    "a path upwards": (with_first("../README.txt"), "'../README.txt'"),
    "a path upwards inside": (with_first("a/../README.txt"), "'a/../README.txt'"),
    "a backslash": (with_first("a\\b"), "'a\\\\b'"),
    "a drive": (with_first("C:b"), "'C:b'"),
    "a folder": (with_first("a/", b""), "'a/'"),
    "an empty name": (with_first("", b""), "''"),
    "a NUL in a name": (with_first("README.txt\0.exe"), "'README.txt\\x00.exe'"),
    "an escape sequence in a name": (with_first("\x1b[2J"), "'\\x1b[2J'"),
    "a name beyond ASCII": (with_first("ÀÉ"), "'\\\\xc3\\\\x80\\\\xc3\\\\x89'"),
    "a hidden file": (with_first(".hidden"), "'.hidden'"),
    "a long name": (with_first("A" * 201), "bundle.zip (the file after it)"),
    "a duplicate": (raw_zip([parts()[0], *parts()]), "README.txt"),
    "another order": (raw_zip([*parts()[1:-1], parts()[0], parts()[-1]]), "README.txt"),
    "bundle.json first": (raw_zip([parts()[-1], *parts()[:-1]]), "README.txt"),
    "two bundle.json": (raw_zip([*parts(), parts()[-1]]), "bundle.json"),
    "no bundle.json": (raw_zip(parts()[:-1]), "bundle.json"),
    "a symbolic link": (raw_zip(parts(), mode=0o120777 << 16), "README.txt"),
    "an executable": (raw_zip(parts(), mode=0o100755 << 16), "README.txt"),
    "encrypted": (raw_zip(parts(), flags=1), "README.txt"),
    "a data descriptor": (raw_zip(parts(), flags=8), "README.txt"),
    "names in UTF-8": (raw_zip(parts(), flags=0x800), "README.txt"),
    "another method": (raw_zip(parts(), method=99), "README.txt"),
    "another date": (raw_zip(parts(), date=0x22), "README.txt"),
    "another system": (raw_zip(parts(), made=20), "README.txt"),
    "zip64 by version": (raw_zip(parts(), version=45), "README.txt"),
    "zip64 by size": (changed(18, b"\xff" * 8), "README.txt"),
    "a size beyond the end": (changed(18, struct.pack("<II", 1 << 30, 1 << 30)), "README.txt"),
    "two sizes": (changed(18, struct.pack("<I", 1)), "README.txt"),
    "an extra field": (changed(28, b"\x04\x00"), "README.txt"),
    "another checksum": (changed(14, b"\x00" * 4), "README.txt"),
    "another name in the directory": (changed(DIRECTORY + 46, b"readme"), "README.txt"),
    "another size in the directory": (changed(DIRECTORY + 24, b"\x01"), "README.txt"),
    "another place in the directory": (changed(DIRECTORY + 42, b"\x01"), "README.txt"),
    "a line's comment": (changed(DIRECTORY + 32, b"\x01"), "README.txt"),
    "another disk": (changed(END + 4, b"\x01"), "bundle.zip"),
    "another number of files": (changed(END + 10, b"\x01"), "bundle.zip"),
    "another place of the directory": (changed(END + 16, b"\x01"), "bundle.zip"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_of_zip_is_refused(trick: str, tmp_path: Path) -> None:
    content, named = TRICKS[trick]
    found = refused(content, tmp_path)
    assert found is not None
    assert found.file == named, found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":1', b'"version":2'),
        (b'"version":1', b'"version":1.0'),
        (b'"version":1', b'"version": 1'),
        (b'"version":1', b'"version":1,"version":1'),
        (b'"version":1', b'"ver":1,"version":1'),
        (b'"without_player":false', b'"without_player":0.0'),
        (b'"without_player":false', b'"without_player":0'),
        (b'"without_player":false', b'"without_player":NaN'),
        (b'"bet_id":"b-1"', b'"bet_id":"\\u0062-1"'),
        (b'"bet_id":"b-1"', b'"bet_id":"\\ud800"'),
        (b'"bet_id":"b-1"', b'"bet_id":null'),
        (b'"folder":"start"', b'"folder":"../start"'),
        (b'"folder":"start"', b'"folder":"start/x"'),
        (b'"origin":"audit.predictu.example/op_abc123"', b'"origin":"audit.predictu.example/op_xyz"'),
        (b'"README.txt":"', b'"README.txt":1,"README2.txt":"'),
        (b'"withheld":{}', b'"withheld":{},"z":1'),
        (b'"folder":"start"', b'"folder":"attempts/start"'),
        (b'"folder":"keys/', b'"folder":"keys/../'),
        (b'"withheld":{}', b'"withheld":{"entry.json":"a reason"}'),
        (b'"withheld":{}', b'"withheld":{"request.body":1}'),
        (b'"sealed":["entry"]', b'"sealed":["other"]'),
        (b'"entries":["entry"]', b'"entries":[]'),
        (b'"attempts":[', b'"attempts":[1,'),
        (b'"attempts":[', b'"attempts":' + b"[" * 100_000),
        (b'"origin":"audit', b'"origin":"audit2/op_other/audit'),
        (b"}", b"} "),
    ],
)
def test_a_bundle_json_of_another_form_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    files = parts()
    manifest = files[-1][1]
    assert old in manifest
    index = manifest.rindex(old) if old == b"}" else manifest.index(old)
    content = raw_zip([*files[:-1], ("bundle.json", manifest[:index] + new + manifest[index + len(old) :])])
    path = tmp_path / "bundle.zip"
    path.write_bytes(content)
    if b"audit2" in new:
        assert verify(path, POLICY).is_contradicted
        return
    with pytest.raises(RefusedError, match=r"bundle\.json"):
        verify(path, POLICY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"attempt":1', b'"attempt":"1"'),
        (b'"attempt":1', b'"attempt":1.0'),
        (b'"attempt":1', b'"attempt":true'),
        (b'"attempt":1', b'"attempt": 1'),
        (b'"attempt":1', b'"attempt":1e400'),
        (b'"attempt":1', b'"attempt":' + b"1" * 5000),
        (b'"version":1', b'"version":2'),
        (b'"kind":"attempt"', b'"kind":"other"'),
        (b'"peer":', b'"peer2":'),
        (b'"written_in":', b'"z":1,"written_in":'),
        (b'"report_id":"', b'"report_id":"x'),
        (b'"request_body_sha256":"', b'"request_body_sha256":"A'),
        (b'"started_at":"2026', b'"started_at":"2026 '),
        (b'"verdict":"retry"', b'"verdict":null'),
    ],
)
def test_an_entry_of_another_form_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    forge = good_bundle()
    files = forge.finish()
    name = f"{PLACEMENT}/entry.json"
    assert files[name].count(old) == 1
    files[name] = files[name].replace(old, new)
    found = refused(zipped(files, forge.manifest), tmp_path)
    assert found is not None
    assert found.file == name


def test_a_huge_archive_is_verified_or_refused_in_little_memory(tmp_path: Path) -> None:
    """400 MB in one file, 65,001 files, 16 MB of brackets; the process may have 300 MB."""
    many = tmp_path / "many.zip"
    many.write_bytes(raw_zip([(f"a{number:06}", b"") for number in range(65_001)]))
    large = tmp_path / "large.zip"
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0x21, 0, 400 << 20, 400 << 20, 10, 0)
    with large.open("wb") as file:
        file.write(header + b"README.txt")
        file.truncate(len(header) + 10 + (400 << 20))
    deep = tmp_path / "deep.zip"
    deep.write_bytes(raw_zip([*parts()[:-1], ("bundle.json", b"[" * (1 << 24))]))
    wide = {name: tmp_path / f"{number}.zip" for number, name in enumerate((b"[],", b"0,", b'"a",', b'{"":0},'))}
    for repeated, path in wide.items():
        manifest = b'{"files":[' + repeated * ((15 << 20) // len(repeated)) + b"0]}"
        path.write_bytes(raw_zip([*parts()[:-1], ("bundle.json", manifest)]))
    cases = [(many, "a065000"), (large, "README.txt"), *((path, "bundle.json") for path in (deep, *wide.values()))]
    for path, named in cases:
        run = subprocess.run(
            [sys.executable, "-m", "predictu_dispatch.verifier", str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)),
        )
        assert (run.returncode, run.stdout) == (1, ""), run.stderr
        assert run.stderr.startswith(f"refused: {named}"), run.stderr
