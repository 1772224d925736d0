-- Raises PD002 if the operator is retired.
create or replace function predictu_dispatch.refuse_retired(operator predictu_dispatch.operator) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if operator.retired_at is not null then
        raise exception using errcode = 'PD002',
            message = format('operator %s was retired at %s', quote_literal(operator.operator_id),
                             predictu_dispatch.format_utc(operator.retired_at)),
            hint = 'A retired operator is never used again. If it returns, give it a new operator_id and a file of that name.';
    end if;
end $$;

revoke all on function predictu_dispatch.refuse_retired from public;
