-- Returns the timestamp before which ended callbacks and bets are old: whole months of UTC. Raises
-- PD003, also if keep_months is below retention_floor.
create or replace function predictu_dispatch.retention_cutoff(keep_months integer) returns timestamptz
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    floor_months integer := coalesce((select max(f.months) from predictu_dispatch.retention_floor f), 24);
begin
    if keep_months is null or keep_months not between 1 and 1200 then
        perform predictu_dispatch.refuse_params('retention', format('keep_months is %s', coalesce(keep_months::text, 'NULL')),
            'Give 1 to 1200 whole months; to keep everything, do not run retention.');
    end if;
    if keep_months < floor_months then
        perform predictu_dispatch.refuse_params('retention',
            format('keep_months is %s, and the schema''s owner requires %s', keep_months, floor_months),
            format('Raise [daemon] audit_retention_months, or as the owner: update predictu_dispatch.retention_floor '
                   'set months = %s', keep_months));
    end if;
    return (date_trunc('month', now() at time zone 'UTC') - make_interval(months => keep_months)) at time zone 'UTC';
end $$;

revoke all on function predictu_dispatch.retention_cutoff from public;
grant execute on function predictu_dispatch.retention_cutoff to predictu_retention;
