-- Begins the logs of all operators that have none, and of these ids: their rows of audit_log and, the
-- first time, the position. What is stored by then is the backlog. It counts the rows of these
-- operators: the first time it reads the whole audit, later only their part of an index, because
-- nothing is sealed meanwhile. Returns the operators whose logs begin.
create or replace function predictu_dispatch.audit_begin(origin text, operator_ids text[]) returns text[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    begun text[];
    is_first boolean := not exists (select from predictu_dispatch.audit_position);
begin
    perform predictu_dispatch.commit_durably();
    if not is_first then
        perform set_config('enable_seqscan', 'off', true);
    end if;
    -- One statement, so that all of it sees one snapshot.
    with missing as materialized (
        select o.operator_id from predictu_dispatch.operator o union select unnest(audit_begin.operator_ids)
        except select l.operator_id from predictu_dispatch.audit_log l
    ), stored as materialized (
        select r.operator_id, count(*) as attempts from predictu_dispatch.attempt_record r
         where is_first and r.operator_id in (select m.operator_id from missing m) group by r.operator_id
        union all
        select m.operator_id,
               (select count(*) from predictu_dispatch.attempt_record r where r.operator_id = m.operator_id)
          from missing m where not is_first
    ), inserted as (
        insert into predictu_dispatch.audit_log
            (operator_id, origin, attempts_before, interventions_before, system_identifier)
        select m.operator_id,
               -- The name of a key in notes has no space and no plus.
               audit_begin.origin || '/' || case when m.operator_id ~ '^[A-Za-z0-9._-]{1,200}$' then m.operator_id
                   else '%' || encode(sha256(convert_to(m.operator_id, 'UTF8')), 'hex') end,
               coalesce(a.attempts, 0),
               (select count(*) from predictu_dispatch.intervention i where i.operator_id = m.operator_id),
               c.system_identifier
          from missing m
          left join stored a on a.operator_id = m.operator_id
         cross join pg_control_system() c
            on conflict do nothing returning audit_log.operator_id
    ), positioned as (
        insert into predictu_dispatch.audit_position
            (system_identifier, sealed_until, backlog_until, backlog_part, backlog_block)
        select c.system_identifier, pg_current_snapshot(), pg_current_snapshot(), '', 0 from pg_control_system() c
         where not exists (select from predictu_dispatch.audit_position) on conflict do nothing
    )
    select coalesce(array_agg(b.operator_id order by b.operator_id), '{}') into begun from inserted b;
    return begun;
end $$;

revoke all on function predictu_dispatch.audit_begin from public;
grant execute on function predictu_dispatch.audit_begin to predictu_dispatcher;
