-- Returns the operator. Raises PD002 if it is unknown, disabled or retired. Not stable, because its
-- snapshot must be younger than the caller's lock on producer_scope; see retire_operator().
create or replace function predictu_dispatch.enabled_operator(operator_id text) returns predictu_dispatch.operator
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    found_row predictu_dispatch.operator;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot older than a retirement does not show it; this lock then raises 40001.
        perform from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id for key share;
    end if;
    select o.* into found_row from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id;
    if not found then
        raise exception using errcode = 'PD002',
            message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'A daemon registers an operator when it starts or reloads with the file operators/<operator_id>.toml.';
    end if;
    perform predictu_dispatch.refuse_retired(found_row);
    if not found_row.enabled then
        raise exception using errcode = 'PD002',
            message = format('operator %s is disabled', quote_literal(operator_id)),
            hint = 'Its file has enabled = false; only rollback_bet() works for it.';
    end if;
    return found_row;
end $$;

revoke all on function predictu_dispatch.enabled_operator from public;
