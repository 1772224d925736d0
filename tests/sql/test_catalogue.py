"""What is true of every object of the schema, read from the catalogue."""

from tests.support.harness import Harness

FUNCTIONS_WITHOUT_A_FIXED_PATH = """
select p.oid::regprocedure::text from pg_proc p
 where p.pronamespace = 'predictu_dispatch'::regnamespace
   -- A body that is not a string was bound to its objects when it was created.
   and p.prosqlbody is null
   and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
"""
FOREIGN_DEPENDENCIES = """
with ours as (
    select 'pg_proc'::regclass as class, oid from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_class'::regclass, oid from pg_class where relnamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_type'::regclass, oid from pg_type where typnamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_constraint'::regclass, oid from pg_constraint
               where connamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_rewrite'::regclass, r.oid from pg_rewrite r join pg_class c on c.oid = r.ev_class
               where c.relnamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_trigger'::regclass, t.oid from pg_trigger t join pg_class c on c.oid = t.tgrelid
               where c.relnamespace = 'predictu_dispatch'::regnamespace
    union all select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join pg_class c on c.oid = d.adrelid
               where c.relnamespace = 'predictu_dispatch'::regnamespace
)
-- What belongs to the server itself is not in pg_depend.
select distinct pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on '
       || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
  from ours join pg_depend d on d.classid = ours.class and d.objid = ours.oid
  left join ours as target on target.class = d.refclassid and target.oid = d.refobjid
 where target.oid is null
   and pg_describe_object(d.refclassid, d.refobjid, 0) not in ('schema predictu_dispatch', 'language plpgsql')
"""
TABLES_THAT_CANNOT_BE_REPLICATED = """
select c.oid::regclass::text from pg_class c
 where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p') and c.relreplident <> 'f'
   and not (c.relreplident = 'd' and exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary))
"""


async def test_no_function_looks_for_names_in_its_callers_search_path(harness: Harness) -> None:
    assert [row[0] for row in await harness.owner.fetch(FUNCTIONS_WITHOUT_A_FIXED_PATH)] == []


async def test_nothing_depends_on_an_object_of_somebody_else(harness: Harness) -> None:
    assert [row[0] for row in await harness.owner.fetch(FOREIGN_DEPENDENCIES)] == []


async def test_no_body_has_a_literal_that_standard_conforming_strings_would_change(harness: Harness) -> None:
    bodies = await harness.owner.fetch(
        "select proname from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace"
        # E'…' says itself what its backslash means.
        "   and strpos(regexp_replace(prosrc, 'E''[^'']*''', '', 'g'), chr(92)) > 0"
    )
    assert [row[0] for row in bodies] == []


async def test_every_table_has_a_primary_key_or_its_whole_row_as_replica_identity(harness: Harness) -> None:
    """Otherwise its rows cannot be changed once a publication has all tables, future months too."""
    assert [row[0] for row in await harness.owner.fetch(TABLES_THAT_CANNOT_BE_REPLICATED)] == []
