"""Least privilege: the complete list of each role's rights, so that new objects are noticed."""

import pytest

from tests.support.harness import Connection, connected, open_harness
from tests.support.postgres import Database

MAY_EXECUTE = {
    "predictu_producer": {"enqueue_callback", "rollback_bet", "outcome", "outcome_of_bet", "currency_digits"},
    "predictu_importer": {"adopt_bet"},
    "predictu_dispatcher": {"sync_operators", "claim", "settle", "settle_one", "expire", "prepare_partitions"},
    "predictu_support": set(),
    "predictu_auditor": {"currency_digits", "minor_digits", "payout_of", "readable_params"},
}
MAY_EXECUTE["predictu_auditor"] |= {"record_verification", "token_of"}
FOR_THE_FLEET = {
    "heartbeat",
    "deregister",
    "write_circuits",
    "claim_chore",
    "fleet_figures",
    "reconciliation_figures",
    "correct_times",
    "report_reach",
    "report_signing_keys",
    "register_signing_keys",
}
FOR_SEALING = {
    "audit_append",
    "audit_backlog",
    "audit_begin",
    "audit_heads",
    "audit_rescan",
    "audit_restore",
    "audit_summarize",
    "audit_unsealed",
}
FOR_WITNESSES = {
    "witness_cosigned",
    "witness_failed",
    "witness_figures",
    "witness_newest",
    "witness_submissions",
    "witness_tiles",
}
WITH_OWN_RIGHTS = {"minor_digits", "payout_of", "readable_params", "heartbeat_timeout", "backlog", "callback_groups"}
"""Helpers that show amounts, and counts, which read with their caller's rights."""
MAY_EXECUTE["predictu_dispatcher"] |= (
    FOR_THE_FLEET
    | FOR_SEALING
    | FOR_WITNESSES
    | WITH_OWN_RIGHTS
    | {"claim_apart", "expire_apart", "leases_apart", "ping_state"}
)
MAY_EXECUTE["predictu_support"] |= WITH_OWN_RIGHTS
MAY_EXECUTE["predictu_dispatcher"] |= {"currency_digits"}
MAY_EXECUTE["predictu_support"] |= {"currency_digits"}
FOR_PEOPLE = {
    "retry_callback",
    "cancel_callback",
    "abandon_callback",
    "resolve_callback",
    "pause_operator",
    "resume_operator",
    "retire_operator",
    "retire_signing_key",
    "ping_operator",
}
MAY_EXECUTE["predictu_operations"] = FOR_PEOPLE | WITH_OWN_RIGHTS | {"currency_digits"}
"""The daemon's role has no right of a person."""
FOR_RETENTION = {"retention_cutoff", "purge_finished", "expired_audit", "purge_audit", "purge_runs"}
"""Only this role may remove rows, and it may do nothing else."""
MAY_EXECUTE["predictu_retention"] = FOR_RETENTION
FOR_RECONCILIATION = {"begin_reconciliation", "repeated_lines", "finish_reconciliation"}
FOR_RECONCILIATION |= {"explain_difference", "accept_difference", "currency_digits"}
OF_THE_LEDGER = {"params_money", "body_money", "sent_amount", "difference_kind"}
"""The view `ledger` calls them with its reader's rights."""
WITH_OWN_RIGHTS = WITH_OWN_RIGHTS | OF_THE_LEDGER | {"difference_class"}
for readers in ("predictu_support", "predictu_operations", "predictu_auditor"):
    MAY_EXECUTE[readers] |= OF_THE_LEDGER
MAY_EXECUTE["predictu_reconciler"] = (
    FOR_RECONCILIATION | OF_THE_LEDGER | {"difference_class", "readable_params", "payout_of"}
)
READABLE = {"callback", "attempt", "bet", "operator", "needs_review", "schema_migration"}
READABLE |= {"daemon", "share"}
READABLE |= {"intervention", "currency"}
READABLE |= {"request_tombstone", "bet_tombstone", "purge_cursor", "reconciliation_open"}
OF_RUNS = {
    "ledger",
    "removed_history",
    "reconciliation_run",
    "reconciliation_unreadable",
    "reconciliation_total",
    "reconciliation_item",
}
OF_THE_LOG = {"signing_key", "audit_log", "audit_position", "audit_head", "audit_tile", "audit_checkpoint"}
OF_THE_LOG |= {"audit_cosignature", "audit_witness", "audit_removal", "audit_verification", "legal_hold"}
OF_THE_OWNER = {"producer_scope", "retention_floor"}
"""Only the owner writes them."""
MAY_READ: dict[str, set[str]] = {
    "predictu_producer": set(),
    "predictu_importer": set(),
    "predictu_dispatcher": READABLE | {"reconciliation_run", "reconciliation_total"},
    "predictu_operations": READABLE | OF_THE_OWNER | OF_THE_LOG | OF_RUNS,
    "predictu_support": READABLE | OF_THE_OWNER | OF_THE_LOG | OF_RUNS,
    "predictu_auditor": (READABLE | OF_THE_OWNER | OF_THE_LOG | OF_RUNS) - {"daemon", "share", "purge_cursor"},
    "predictu_retention": {"schema_migration", "purge_cursor"},
    "predictu_reconciler": (READABLE | OF_RUNS | {"reconciliation_line"})
    - {"daemon", "share", "needs_review", "purge_cursor"},
}
MAY_WRITE = {"predictu_reconciler": {"reconciliation_line"}}
"""A run copies its lines there, and its functions remove them."""
MAY_EXECUTE_WITH_RIGHTS_OF_THE_OWNER = set[str]().union(*MAY_EXECUTE.values()) - WITH_OWN_RIGHTS
AT_COMMIT = {"notify_due"}
"""A deferred trigger, which would run with the rights of the session's login."""


async def functions(owner: Connection, role: str) -> set[str]:
    rows = await owner.fetch(
        "select p.proname from pg_proc p where p.pronamespace = 'predictu_dispatch'::regnamespace"
        "   and has_function_privilege($1, p.oid, 'execute')",
        role,
    )
    return {row["proname"] for row in rows}


async def relations(owner: Connection, role: str, *privileges: str) -> set[str]:
    """Tables and views on which the role has one of the privileges."""
    rows = await owner.fetch(
        "select distinct c.relname from pg_class c, unnest($2::text[]) privilege"
        " where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')"
        "   and has_table_privilege($1, c.oid, privilege)",
        *(role, privileges),
    )
    return {row["relname"] for row in rows}


@pytest.mark.parametrize("role", MAY_EXECUTE)
async def test_a_role_may_execute_exactly_its_functions(database: Database, role: str) -> None:
    async with connected(database.owner, 1) as [owner]:
        assert await functions(owner, role) == MAY_EXECUTE[role]
        assert await functions(owner, "pg_monitor") == set(), "PUBLIC has no right"


@pytest.mark.parametrize("role", MAY_READ)
async def test_a_role_reads_and_writes_exactly_its_relations(database: Database, role: str) -> None:
    async with connected(database.owner, 1) as [owner]:
        assert await relations(owner, role, "select") == MAY_READ[role]
        written = await relations(owner, role, "insert", "update", "delete", "truncate", "references", "trigger")
        assert written == MAY_WRITE.get(role, set())
        assert not await owner.fetchval("select has_schema_privilege($1, 'predictu_dispatch', 'create')", role)


async def test_every_security_definer_function_has_a_fixed_search_path(database: Database) -> None:
    """Without it, a caller could insert its own objects before ours."""
    async with connected(database.owner, 1) as [owner]:
        rows = await owner.fetch(
            "select p.proname, p.prosecdef, p.proconfig from pg_proc p"
            " where p.pronamespace = 'predictu_dispatch'::regnamespace"
        )
    definers = {row["proname"]: row["proconfig"] for row in rows if row["prosecdef"]}
    assert set(definers) == MAY_EXECUTE_WITH_RIGHTS_OF_THE_OWNER | AT_COMMIT
    assert {
        name for name, config in definers.items() if "search_path=pg_catalog, pg_temp" not in (config or ())
    } == set()


async def test_a_producers_own_objects_are_not_used_by_our_functions(database: Database) -> None:
    """Temporary tables and SQL operators of the caller."""
    async with open_harness(database) as harness:
        await harness.producer.execute(
            "create temp table callback (like pg_class); create temp table bet (stolen text)"
        )
        await harness.producer.execute("set search_path = pg_temp, public")
        placement = await harness.place()
        assert await harness.rollback() is None
        assert await harness.state(placement) == "cancelled"
