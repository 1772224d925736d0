-- Checks the name and the reason that will be recorded. Raises PD003.
create or replace function predictu_dispatch.check_intervention(action text, reason text, done_by text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(done_by, '') !~ '[^[:space:]]' or length(done_by) > 200 then
        perform predictu_dispatch.refuse_params(action,
            format('by is %s', coalesce(quote_literal(left(done_by, 80)), 'NULL')),
            'Give a name of 1 to 200 characters, for example alice@host-1.');
    end if;
    if (reason is null and action not in ('retry', 'resume')) or reason !~ '[^[:space:]]' or length(reason) > 500 then
        perform predictu_dispatch.refuse_params(action,
            format('reason is %s', coalesce(quote_literal(left(reason, 80)), 'NULL')),
            'Give a reason of 1 to 500 characters; it is the only explanation that is kept.');
    end if;
end $$;

revoke all on function predictu_dispatch.check_intervention from public;
