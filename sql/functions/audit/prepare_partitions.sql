-- Creates the audit's partitions for this month and the `months_ahead` that follow. Repeated and
-- concurrent calls are safe. A month that cannot be created now is tried again at the next call;
-- its rows go to the default partition meanwhile.
create or replace function predictu_dispatch.prepare_partitions(months_ahead integer) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    month date;
    name text;
begin
    if not predictu_dispatch.take_lock('partitions', waits => false) then
        return; -- Another session is creating them.
    end if;
    for step in 0 .. months_ahead loop
        month := (date_trunc('month', now() at time zone 'UTC') + step * interval '1 month')::date;
        name := 'attempt_' || to_char(month, 'YYYY_MM');
        continue when to_regclass('predictu_dispatch.' || name) is not null;
        begin
            -- Created apart and attached: created in place it would lock the whole audit.
            execute format('create table predictu_dispatch.%I '
                           '(like predictu_dispatch.attempt_record including defaults including constraints)', name);
            execute format('alter table predictu_dispatch.%I replica identity full', name);
            execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I '
                           'for values from (%L) to (%L)', name, to_char(month, 'YYYY-MM-DD 00:00:00+00'),
                           to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
            execute format('create trigger attempt_not_truncated before truncate on predictu_dispatch.%I for each statement '
                           'execute function predictu_dispatch.refuse_audit_change()', name);
            execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_truncated', name);
        exception
            -- Attaching locks the default partition. While a long read holds it, waiting would stop
            -- every settle behind us. Rows of this month that are already there stay there.
            when lock_not_available or check_violation then
                raise warning 'predictu_dispatch.% is not created now: %', name, sqlerrm;
        end;
    end loop;
end $$;

revoke all on function predictu_dispatch.prepare_partitions from public;
grant execute on function predictu_dispatch.prepare_partitions to predictu_dispatcher;
