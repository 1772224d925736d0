-- Refuses a login that may act for other operators only; see producer_scope. Raises PD008.
create or replace function predictu_dispatch.check_producer_scope(operator_id text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from predictu_dispatch.producer_scope s where s.role_name = session_user)
       and not exists (select from predictu_dispatch.producer_scope s
                        where s.role_name = session_user and s.operator_id = check_producer_scope.operator_id) then
        raise exception using errcode = 'PD008',
            message = format('%s may not act for operator %s', session_user,
                             coalesce(quote_literal(left(check_producer_scope.operator_id, 80)), 'NULL')),
            hint = 'The login has rows in predictu_dispatch.producer_scope, so it may act for those operators only; '
                   'the owner of the schema adds or deletes rows.';
    end if;
end $$;

revoke all on function predictu_dispatch.check_producer_scope from public;
