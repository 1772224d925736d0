-- Locks the callback's bet and then the callback, and returns the callback. Raises PD005, and PD006
-- after the caller's lock_timeout.
create or replace function predictu_dispatch.lock_callback(action text, operator_id text, request_id uuid)
returns predictu_dispatch.callback language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
begin
    perform from predictu_dispatch.bet b
      where b.operator_id = operator_id and b.bet_id = (
            select c.bet_id from predictu_dispatch.callback c
             where c.operator_id = operator_id and c.request_id = request_id
      ) for no key update;
    -- A statement of its own sees everything that was committed before the bet's lock was granted.
    select c.* into locked from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = request_id for no key update;
    if not found then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: operator %s has no such callback', action,
                             coalesce(request_id::text, 'NULL'), coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'Check the request_id and the operator_id.';
    end if;
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(
        format('callback %s of operator %s, or its bet,', request_id, quote_literal(operator_id)));
end $$;

revoke all on function predictu_dispatch.lock_callback from public;
