-- Detaches an audit partition and, with_kept, attaches its successor, in one transaction. settle()
-- waits for the lock that this takes: a few milliseconds, and at most lock_timeout while others
-- hold it. Then it raises 55P03 and the caller tries again later. DETACH CONCURRENTLY is not
-- possible beside a default partition.
create or replace function predictu_dispatch.swap_audit_partition(part text, with_kept boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '30ms' as $$
declare
    attached text := 'attempt_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    if with_kept and month is not null and pg_relation_size('predictu_dispatch.attempt_default') > 1048576 then
        -- Attaching a month reads the default partition under the lock.
        raise exception using errcode = '55000',
            message = format('part %s stays: the default partition is too large to attach beside it', part),
            hint = 'The default partition is removed when all of its rows are old.';
    end if;
    -- With the whole audit locked, only an autovacuum can hold a partition; nowait, because it may
    -- run for long.
    lock table only predictu_dispatch.attempt_record in access exclusive mode;
    lock table only predictu_dispatch.attempt_default in access exclusive mode nowait;
    execute format('lock table only predictu_dispatch.%I in access exclusive mode nowait', attached);
    execute format('alter table predictu_dispatch.attempt_record detach partition predictu_dispatch.%I', attached);
    execute format('alter table predictu_dispatch.%I rename to %I', attached, 'retired_' || part);
    if month is null then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I default', attached);
    elsif with_kept then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I '
                       'for values from (%L) to (%L)', attached, to_char(month, 'YYYY-MM-DD 00:00:00+00'),
                       to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
        execute format('alter table predictu_dispatch.%I drop constraint kept_month', attached);
    else
        execute format('drop table predictu_dispatch.%I', 'kept_' || part);
    end if;
end $$;

revoke all on function predictu_dispatch.swap_audit_partition from public;
