-- Creates an empty successor for an audit partition; drops one that an interrupted run left.
create or replace function predictu_dispatch.create_kept_partition(part text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    kept text := 'kept_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    execute format('drop table if exists predictu_dispatch.%I', kept);
    execute format('create table predictu_dispatch.%I '
                   '(like predictu_dispatch.attempt_record including defaults including constraints including indexes)', kept);
    execute format('alter table predictu_dispatch.%I replica identity full', kept);
    execute format('create trigger attempt_not_truncated before truncate on predictu_dispatch.%I for each statement '
                   'execute function predictu_dispatch.refuse_audit_change()', kept);
    execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_truncated', kept);
    if month is not null then
        -- A table with this constraint is attached without being read.
        execute format('alter table predictu_dispatch.%I add constraint kept_month '
                       'check (started_at >= %L and started_at < %L)', kept, to_char(month, 'YYYY-MM-DD 00:00:00+00'), to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
    end if;
end $$;

revoke all on function predictu_dispatch.create_kept_partition from public;
