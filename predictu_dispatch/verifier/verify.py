"""Verifies a whole bundle, and says what nothing proves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .archive import RefusedError, open_archive
from .attempts import Bundle, check_attempt
from .keys import Keyring, read_keys
from .manifest import INTERVENTION_FILES, POLICY, Folder, Manifest, read_manifest
from .policy import POLICY_BYTES_MAX, Policy, parse_policy
from .records import Log, Statement, UnprovedError, Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a bundle."""

    manifest: Manifest
    policy: str
    """Whose policy was used: `given`, `bundle` or `none`."""
    statements: tuple[Statement, ...]
    not_proved: tuple[str, ...]

    @property
    def is_contradicted(self) -> bool:
        return any(each.verdict is Verdict.CONTRADICTED for each in self.statements)


def verify(path: Path, policy: Policy | None = None) -> Report:
    """Verify a bundle. Without a policy its own is used, which proves less.

    Raises RefusedError if the form is not that of FORMAT.md, OSError if the file cannot be read.
    """
    with open_archive(path) as archive:
        manifest = read_manifest(archive)
        used = policy
        if used is None and POLICY in archive.members:
            try:
                used = parse_policy(archive.read(POLICY, POLICY_BYTES_MAX))
            except ValueError as error:
                raise RefusedError(POLICY, str(error)) from None
        log = Log(archive, manifest, used, is_own=policy is None)
        statements = tuple(_statements(log, manifest, is_own=policy is None))
        whose = "given" if policy is not None else "none" if used is None else "bundle"
        rest = _not_proved(manifest, whose=whose, is_cosigned=log.has_witness)
        return Report(manifest, whose, statements, tuple(rest))


def _statements(log: Log, manifest: Manifest, *, is_own: bool) -> Iterator[Statement]:
    yield from _start(log, manifest.start)
    keyring = Keyring()
    yield from read_keys(log, manifest.keys, keyring)
    bundle = Bundle(log, keyring, manifest.bet_id)
    for folder in manifest.attempts:
        yield from check_attempt(bundle, folder)
    for folder in manifest.interventions:
        yield from _intervention(log, folder)
    if is_own and log.policy is not None:
        yield Statement(Verdict.RECORD, "The log's key is the one that the bundle itself names.", POLICY)
    yield Statement(Verdict.RECORD, "story.txt describes the bet in plain words.", "story.txt")


def _start(log: Log, folder: Folder) -> Iterator[Statement]:
    entry = log.entry(folder, "entry", "start")
    if not folder.sealed:
        raise RefusedError(folder.file("entry.tlog-proof"), "it is missing")
    before = (
        f"{_count(entry['attempts_before'], 'attempt')} and {_count(entry['interventions_before'], 'intervention')}"
    )
    text = f"The log {log.origin} begins at {entry['started_at']}; {before} were stored before."
    try:
        if entry["origin"] != log.origin:
            raise ValueError(f"the entry is the start of the log {entry['origin']}")  # noqa: TRY301 - one answer for all
        if log.place(folder, "entry", entry).index:
            raise ValueError("the start is not the first entry of the log")  # noqa: TRY301
    except UnprovedError as error:
        yield Statement(Verdict.RECORD, f"{text} {error}", folder.path)
    except ValueError as error:
        yield Statement(Verdict.CONTRADICTED, text, folder.path, str(error))
    else:
        yield Statement(Verdict.PROVED, text, folder.path)


def _count(number: int | None, noun: str) -> str:
    return f"{number or 0} {noun}{'' if number == 1 else 's'}"


def _intervention(log: Log, folder: Folder) -> Iterator[Statement]:
    entry = log.entry(folder, "entry", "intervention")
    if folder.path != f"interventions/{entry['intervention_id']}":
        raise RefusedError(folder.file("entry.json"), "it is the entry of another folder")
    whom = f"by {entry['done_by']} (database role {entry['database_role']})"
    text = f"The intervention {entry['action']} {whom} at {entry['done_at']}"
    try:
        log.check_files(folder, entry, INTERVENTION_FILES)
        if not folder.sealed:
            yield Statement(Verdict.RECORD, f"{text} is not in the log yet.", folder.path)
            return
        place = log.place(folder, "entry", entry)
    except UnprovedError as error:
        yield Statement(Verdict.RECORD, f"{text}. {error}", folder.path)
        return
    except ValueError as error:
        yield Statement(Verdict.CONTRADICTED, f"{text} is in the log.", folder.path, str(error))
        return
    where = f"is entry {place.index} of the log, of size {place.checkpoint.size}"
    yield Statement(Verdict.PROVED, f"{text} {where}.", folder.path)


def _not_proved(manifest: Manifest, *, whose: str, is_cosigned: bool) -> Iterator[str]:
    if whose == "none":
        yield "Whatever is said of the log: its key is not known. Give --policy FILE with the key."
    elif whose == "bundle":
        yield (
            "That the log's key belongs to Predictu: it comes from the bundle itself. Give --policy FILE with the"
            " key that you got from Predictu earlier, or from somebody else."
        )
    if is_cosigned:
        yield "When the records came into the log, beyond the times at which witnesses cosigned it."
    else:
        yield "When the records came into the log, and that nobody was shown another log: no known witness cosigned it."
    yield "What the operator received, answered and booked: the log has what Predictu recorded of it."
    yield "The times in the records: they are those of Predictu's clocks."
    yield "That nothing else exists about this bet: only the whole log shows that (audit export)."
    yield "That no key was retired earlier than the bundle says: only the whole log shows that."
    yield "What happened to records before the log began, if it began later than they did."
    if any(folder.withheld for folder in (*manifest.attempts, *manifest.interventions)):
        yield "The content of the files that are left out."
    yield "README.txt and story.txt: they explain, and nothing signs them."
