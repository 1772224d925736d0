-- Locks the open differences of an operator and returns one of them. Raises PD005 if it is not open,
-- and PD006 after the caller's lock_timeout.
create or replace function predictu_dispatch.lock_difference(action text, operator_id text, item_id uuid)
returns predictu_dispatch.reconciliation_item
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    known record;
begin
    perform predictu_dispatch.take_lock(format('differences of %s', operator_id), waits => true);
    -- A statement of its own sees everything that was committed before the lock was granted.
    select i.* into locked from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.item_id = item_id and i.is_open
       for no key update;
    if found then
        return locked;
    end if;
    select i.class, r.finished_at into known
      from predictu_dispatch.reconciliation_item i
      join predictu_dispatch.reconciliation_run r on r.operator_id = i.operator_id and r.run_id = i.run_id
     where i.operator_id = operator_id and i.item_id = item_id and r.finished_at is not null
     order by r.finished_at desc limit 1;
    if not found then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: operator %s has no such difference', action,
                             coalesce(item_id::text, 'NULL'), coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'To list the open differences: predictu-dispatch reconcile list';
    elsif predictu_dispatch.difference_kind(known.class) not in ('difference', 'contradiction') then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: it is %s, which is no difference', action, item_id, known.class),
            hint = format('To see it: predictu-dispatch reconcile show %s', item_id);
    end if;
    raise exception using errcode = 'PD005',
        message = format('%s of difference %s is refused: %s', action, item_id, coalesce((
            select format('%s accepted it at %s: %s', a.done_by, predictu_dispatch.format_utc(a.done_at), a.reason)
              from predictu_dispatch.intervention a
             where a.operator_id = operator_id and a.action = 'accept' and a.before ->> 'item_id' = item_id::text
             order by a.done_at desc limit 1
        ), format('it is not open, because a run after %s closed it', predictu_dispatch.format_utc(known.finished_at)))),
        hint = format('To see it: predictu-dispatch reconcile show %s', item_id);
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('a difference of operator %s', quote_literal(operator_id)));
end $$;

revoke all on function predictu_dispatch.lock_difference from public;
