-- Writes the operators of a daemon's configuration, so that producers can use them. Unchanged
-- operators are not written, and an operator without a file stays, because another daemon may have
-- the file. A retired operator is never written. Returns the operators that another transaction has
-- locked; they are not written.
create or replace function predictu_dispatch.sync_operators(
    operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[],
    settlement_deadlines_s double precision[], fingerprints text[]
) returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.operator
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s,
                         fingerprints) order by 1
    on conflict (operator_id) do nothing;
    return query
    with given as (
        select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s,
                             fingerprints)
                      as given (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, fingerprint)
    ), differing as (
        select given.* from given join predictu_dispatch.operator o on o.operator_id = given.operator_id
         where o.retired_at is null
           and (o.enabled, o.interactive_deadline_s, o.settlement_deadline_s, o.config_fingerprint)
               is distinct from
               (given.enabled, given.interactive_deadline_s, given.settlement_deadline_s, given.fingerprint)
    ), locked as materialized (
        select o.operator_id from predictu_dispatch.operator o join differing on differing.operator_id = o.operator_id
         where o.retired_at is null order by o.operator_id for no key update of o skip locked
    ), written as (
        update predictu_dispatch.operator o
           set enabled = differing.enabled, interactive_deadline_s = differing.interactive_deadline_s,
               settlement_deadline_s = differing.settlement_deadline_s, config_fingerprint = differing.fingerprint,
               updated_at = now()
          from differing, locked
         where o.operator_id = differing.operator_id and locked.operator_id = differing.operator_id
        returning o.operator_id
    )
    select differing.operator_id from differing
     where differing.operator_id not in (select written.operator_id from written);
end $$;

revoke all on function predictu_dispatch.sync_operators from public;
grant execute on function predictu_dispatch.sync_operators to predictu_dispatcher;
