-- Records why an open difference exists. It stays open until accept_difference() or a later run, and
-- may be explained again. Raises PD003, PD005, PD006.
create or replace function predictu_dispatch.explain_difference(operator_id text, item_id uuid, reason text, by text)
returns predictu_dispatch.reconciliation_item
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    is_explained boolean;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('explain', reason, by);
    locked := predictu_dispatch.lock_difference('explain', operator_id, item_id);
    is_explained := exists (
        select from predictu_dispatch.intervention e
         where e.operator_id = operator_id and e.action = 'explain' and e.before ->> 'item_id' = item_id::text);
    perform predictu_dispatch.record_intervention('explain',
        to_jsonb(locked) || jsonb_build_object('state', case when is_explained then 'explained' else 'open' end),
        to_jsonb(locked) || jsonb_build_object('state', 'explained'), reason, by, clock_timestamp());
    return locked;
end $$;

revoke all on function predictu_dispatch.explain_difference from public;
revoke all on function predictu_dispatch.explain_difference from predictu_dispatcher;
grant execute on function predictu_dispatch.explain_difference to predictu_reconciler;
