-- Raises the error again if it is an outage or a conflict, which says nothing about the row that was
-- being processed: connection, conflict, resources, shutdown, a read-only server, a held lock.
create or replace function predictu_dispatch.raise_outage(sqlstate text, message text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
begin
    if left(sqlstate, 2) in ('08', '40', '53', '57') or sqlstate in ('25006', '55P03') then
        raise exception using errcode = sqlstate, message = message;
    end if;
end $$;

revoke all on function predictu_dispatch.raise_outage from public;
