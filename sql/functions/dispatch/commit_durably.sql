-- Makes the current transaction's commit wait for the disk, even if the database is set to
-- synchronous_commit = off, because requests are sent after it.
create or replace function predictu_dispatch.commit_durably() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $$;

revoke all on function predictu_dispatch.commit_durably from public;
