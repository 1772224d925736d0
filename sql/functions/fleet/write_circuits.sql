-- Writes what a daemon decided on operators that it saw at the given revisions. Returns the
-- operators that were still at that revision and not locked; the daemon reads the others again.
-- Null leaves a time unchanged; a null ping_in_s plans no PING, and pings starts one. The failure_
-- parameters describe the last failure; daemons of the first release do not give them.
create or replace function predictu_dispatch.write_circuits(
    operator_ids text[], revisions bigint[], circuits text[], healths text[], consecutive_failures integer[],
    success_s_ago double precision[], failure_s_ago double precision[], ping_in_s double precision[], pings boolean[],
    interactive_backoff_s double precision[], settlement_backoff_s double precision[], failure_reasons text[] default null,
    failure_statuses integer[] default null, failure_locations text[] default null, failure_request_ids uuid[] default null,
    failure_attempts integer[] default null
) returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    named text;
begin
    perform predictu_dispatch.commit_durably();
    for named in
        with decided as (
            select * from unnest(operator_ids, revisions, circuits, healths, write_circuits.consecutive_failures, success_s_ago,
                                 failure_s_ago, ping_in_s, interactive_backoff_s, settlement_backoff_s, failure_reasons,
                                 failure_statuses, failure_locations, failure_request_ids, failure_attempts)
                          as decided (operator_id, revision, circuit, health, consecutive_failures, success_s_ago, failure_s_ago,
                                      ping_in_s, interactive_backoff_s, settlement_backoff_s, failure_reason, failure_status,
                                      failure_location, failure_request_id, failure_attempt)
        ), locked as materialized (
            select o.operator_id,
                   coalesce(o.last_failure_at, '-infinity') <= now() - d.failure_s_ago * interval '1 second' as is_newer
              from predictu_dispatch.operator o join decided d on d.operator_id = o.operator_id
             where o.revision = d.revision order by o.operator_id for no key update of o skip locked
        )
        update predictu_dispatch.operator o
           set circuit = d.circuit, health = d.health, consecutive_failures = d.consecutive_failures,
               revision = o.revision + 1,
               circuit_since = case when o.circuit = d.circuit or d.circuit = 'half_open' then o.circuit_since
                                    when o.circuit = 'half_open' and d.circuit = 'open' then o.circuit_since else now() end,
               last_success_at = greatest(o.last_success_at, now() - d.success_s_ago * interval '1 second'),
               last_failure_at = greatest(o.last_failure_at, now() - d.failure_s_ago * interval '1 second'),
               last_failure_reason = case when l.is_newer then d.failure_reason else o.last_failure_reason end,
               last_failure_status = case when l.is_newer then d.failure_status else o.last_failure_status end,
               last_failure_location = case when l.is_newer then d.failure_location else o.last_failure_location end,
               last_failure_request_id = case when l.is_newer then d.failure_request_id else o.last_failure_request_id end,
               last_failure_attempt = case when l.is_newer then d.failure_attempt else o.last_failure_attempt end,
               ping_at = now() + d.ping_in_s * interval '1 second',
               interactive_backoff_until = greatest(o.interactive_backoff_until,
                                                    now() + d.interactive_backoff_s * interval '1 second'),
               settlement_backoff_until = greatest(o.settlement_backoff_until,
                                                   now() + d.settlement_backoff_s * interval '1 second')
          from decided d, locked l
         where o.operator_id = d.operator_id and l.operator_id = d.operator_id
        returning o.operator_id
    loop
        if pings[array_position(operator_ids, named)] then
            perform predictu_dispatch.start_ping(named);
        end if;
        return next named;
    end loop;
end $$;

revoke all on function predictu_dispatch.write_circuits from public;
grant execute on function predictu_dispatch.write_circuits to predictu_dispatcher;
