"""What keeps the audit append-only is compared with this release's files."""

from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.evidence.schema_check import expected_triggers, has_our_view, schema_differences
from tests.support.harness import Harness


async def test_nothing_differs_in_a_migrated_database(harness: Harness) -> None:
    found = await harness.owner.fetch(query("audit_schema"))
    assert schema_differences(found) == []
    assert has_our_view(found)


async def test_each_trigger_that_is_off_missing_or_not_ours_is_named(harness: Harness) -> None:
    triggers = expected_triggers()
    assert {table for table, _ in triggers} >= {"attempt_record", "intervention", "signing_key", "audit_tile"}
    for number, (table, trigger) in enumerate(sorted(triggers)):
        of = f"predictu_dispatch.{table}"
        await harness.owner.execute(
            f"drop trigger {trigger} on {of}" if number % 2 else f"alter table {of} disable trigger {trigger}"
        )
    await harness.owner.execute(
        "create trigger stranger before insert on predictu_dispatch.attempt_record"
        " for each row execute function suppress_redundant_updates_trigger()"
    )
    found = schema_differences(await harness.owner.fetch(query("audit_schema")))
    for number, (table, trigger) in enumerate(sorted(triggers)):
        assert f"the trigger {trigger} of {table} is {'missing' if number % 2 else 'disabled'}" in found
    assert [each for each in found if "stranger of attempt_record is none of ours" in each]
