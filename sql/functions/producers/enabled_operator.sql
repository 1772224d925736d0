-- Returns the operator. Raises PD002 if it is unknown or disabled.
create or replace function predictu_dispatch.enabled_operator(operator_id text) returns predictu_dispatch.operator
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_row predictu_dispatch.operator;
begin
    select o.* into found_row from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id;
    if not found then
        raise exception using errcode = 'PD002',
            message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'A daemon registers an operator when it starts or reloads with the file operators/<operator_id>.toml.';
    end if;
    if not found_row.enabled then
        raise exception using errcode = 'PD002',
            message = format('operator %s is disabled', quote_literal(operator_id)),
            hint = 'Its file has enabled = false; only rollback_bet() works for it.';
    end if;
    return found_row;
end $$;

revoke all on function predictu_dispatch.enabled_operator from public;
