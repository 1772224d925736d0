-- Closes an open difference that somebody else has explained. While its amounts stay as they are, no
-- later run opens it again. Raises PD003, PD005, PD006.
create or replace function predictu_dispatch.accept_difference(operator_id text, item_id uuid, reason text, by text)
returns predictu_dispatch.reconciliation_item
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    logins text[];
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('accept', reason, by);
    locked := predictu_dispatch.lock_difference('accept', operator_id, item_id);
    select array_agg(e.database_role) into logins from predictu_dispatch.intervention e
     where e.operator_id = operator_id and e.action = 'explain' and e.before ->> 'item_id' = item_id::text;
    if logins is null then
        raise exception using errcode = 'PD005',
            message = format('accept of difference %s is refused: nobody has explained it', item_id),
            hint = format('To explain it: predictu-dispatch reconcile explain %s --reason TEXT', item_id);
    elsif session_user = any (logins) then
        raise exception using errcode = 'PD005',
            message = format('accept of difference %s is refused: database login %s has explained it', item_id,
                             session_user),
            hint = 'Somebody who has not explained it must accept it, with a database login of their own.';
    end if;
    perform predictu_dispatch.record_intervention('accept',
        to_jsonb(locked) || jsonb_build_object('state', 'explained'),
        to_jsonb(locked) || jsonb_build_object('state', 'accepted'), reason, by, clock_timestamp());
    update predictu_dispatch.reconciliation_item i set is_open = false
     where i.operator_id = operator_id and i.item_id = item_id and i.is_open
    returning i.* into locked;
    return locked;
end $$;

revoke all on function predictu_dispatch.accept_difference from public;
revoke all on function predictu_dispatch.accept_difference from predictu_dispatcher;
grant execute on function predictu_dispatch.accept_difference to predictu_reconciler;
