-- Locks and returns the operator's row. Raises PD002 if it is unknown or retired, and PD006 after the caller's lock_timeout.
create or replace function predictu_dispatch.lock_operator(operator_id text)
returns predictu_dispatch.operator language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    select o.* into locked from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    if not found then
        raise exception using errcode = 'PD002',
            message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'A daemon registers an operator when it starts or reloads with the file operators/<operator_id>.toml.';
    end if;
    perform predictu_dispatch.refuse_retired(locked);
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('operator %s', quote_literal(operator_id)));
end $$;

revoke all on function predictu_dispatch.lock_operator from public;
