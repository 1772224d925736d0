-- Records that a daemon is alive and what it still uses; returns its shares of the operators'
-- limits. If is_fair is false, this daemon or another one must still return a share, and the daemon
-- should call again soon. Raises PD007 if another live daemon has the same name. A step of the clock
-- must neither keep a stopped daemon alive nor end a running one. So only a caller that has seen the
-- clock steady for heartbeat_timeout() removes shares: clock_at_s is the Unix time that it expects
-- here, or 0 if it has not. silent_at is a last heartbeat of this name that the caller has seen
-- unchanged for that long on its own clock. clock_ahead_s is by how much this clock is ahead of the
-- caller's, for `status`.
create or replace function predictu_dispatch.heartbeat(
    instance text, session_id uuid, host text, pid integer, version text, operator_ids text[],
    interactive_max integer[], settlement_max integer[], requests_per_s_max double precision[],
    interactive_used integer[], settlement_used integer[], requests_per_s_used double precision[], schema_version integer,
    clock_at_s double precision default null, clock_ahead_s double precision default null,
    silent_at timestamptz default null
) returns table (
    operator_id text, interactive_slots integer, settlement_slots integer, requests_per_s double precision,
    is_fair boolean
) language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
set enable_nestloop = off set jit = off as $$
#variable_conflict use_column
declare
    -- As expected, before it waits for others. A daemon of an earlier release expects nothing.
    is_steady boolean := coalesce(abs(extract(epoch from clock_timestamp()) - clock_at_s) < 0.25, true);
    seen_now timestamptz;
    -- A later heartbeat was sent before the clock was set back.
    ahead timestamptz;
    silent_since timestamptz;
    other predictu_dispatch.daemon;
    is_established boolean;
begin
    -- One daemon at a time: the next may take what this one returns.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    seen_now := clock_timestamp();
    silent_since := seen_now - predictu_dispatch.heartbeat_timeout();
    ahead := seen_now + interval '1 second';
    select d.* into other from predictu_dispatch.daemon d
     where d.instance = heartbeat.instance and d.session_id <> heartbeat.session_id and d.seen_at > silent_since
       and d.seen_at is distinct from silent_at;
    if found then
        raise exception using errcode = 'PD007',
            message = format('another daemon called %s is running on host %s, process %s', quote_literal(instance),
                             other.host, other.pid),
            hint = 'Give each daemon its own name: [daemon] instance in dispatcher.toml.';
    end if;
    update predictu_dispatch.daemon d
       set session_id = heartbeat.session_id, host = heartbeat.host, pid = heartbeat.pid,
           version = heartbeat.version, schema_version = heartbeat.schema_version, seen_at = seen_now,
           clock_ahead_s = heartbeat.clock_ahead_s,
           started_at = case d.session_id when heartbeat.session_id then d.started_at else seen_now end,
           -- A new session reports its own, or none if it is of an earlier release.
           signing_keys = case d.session_id when heartbeat.session_id then d.signing_keys end,
           present_since = case when d.seen_at between silent_since and ahead then d.present_since else seen_now end
     where d.instance = heartbeat.instance
    returning d.present_since < silent_since into is_established;
    if not found then
        insert into predictu_dispatch.daemon
            (instance, session_id, host, pid, version, schema_version, started_at, present_since, seen_at)
        values (instance, session_id, host, pid, version, schema_version, seen_now, seen_now, seen_now);
    end if;
    if is_established and is_steady then
        -- Since the clock is steady, a running daemon has sent a heartbeat.
        update predictu_dispatch.daemon d set seen_at = silent_since, present_since = least(d.present_since, silent_since)
         where d.seen_at > ahead;
        -- Stopped daemons lose their shares. After an outage all daemons are silent, so the first
        -- one to return must wait.
        delete from predictu_dispatch.share s
         where not exists (select from predictu_dispatch.daemon d
                            where d.instance = s.instance and d.seen_at > silent_since);
        delete from predictu_dispatch.daemon d where d.seen_at < seen_now - interval '1 day';
    end if;
    delete from predictu_dispatch.share s where s.instance = heartbeat.instance and s.operator_id <> all (operator_ids);
    insert into predictu_dispatch.share as s (operator_id, instance, interactive_max, settlement_max, requests_per_s_max)
    select requested.operator_id, heartbeat.instance, requested.interactive_max, requested.settlement_max,
           requested.requests_per_s_max
      from unnest(operator_ids, heartbeat.interactive_max, heartbeat.settlement_max, heartbeat.requests_per_s_max)
           as requested (operator_id, interactive_max, settlement_max, requests_per_s_max)
    on conflict (operator_id, instance) do update
       set interactive_max = excluded.interactive_max, settlement_max = excluded.settlement_max,
           requests_per_s_max = excluded.requests_per_s_max
     where (s.interactive_max, s.settlement_max, s.requests_per_s_max)
           is distinct from (excluded.interactive_max, excluded.settlement_max, excluded.requests_per_s_max);

    return query
    with requested as (
        select * from unnest(operator_ids, interactive_used, settlement_used, requests_per_s_used)
                      as requested (operator_id, interactive_used, settlement_used, requests_per_s_used)
    ), divided as (
        select s.operator_id, count(d.instance) as live,
               count(*) filter (where d.instance < heartbeat.instance) as live_before,
               count(d.instance) filter (where s.unreachable_since is null) as connected,
               count(*) filter (where d.instance < heartbeat.instance and s.unreachable_since is null) as connected_before,
               coalesce(sum(s.interactive_slots) filter (where s.instance <> heartbeat.instance), 0) as others_interactive,
               coalesce(sum(s.settlement_slots) filter (where s.instance <> heartbeat.instance), 0) as others_settlement,
               coalesce(sum(s.requests_per_s) filter (where s.instance <> heartbeat.instance), 0) as others_per_s
          from predictu_dispatch.share s
          left join predictu_dispatch.daemon d on d.instance = s.instance and d.seen_at > silent_since
         where s.operator_id = any (operator_ids)
         group by s.operator_id
    ), fair as (
        select s.operator_id, predictu_dispatch.share_of(s.interactive_max, n.serving, p.place) as interactive,
               predictu_dispatch.share_of(s.settlement_max, n.serving, p.place) as settlement,
               predictu_dispatch.rate_share_of(nullif(s.requests_per_s_max, 0), n.serving, p.place) as per_s
          from predictu_dispatch.share s join divided v on v.operator_id = s.operator_id
         -- A daemon that cannot connect to the operator has no share while another one can.
         cross join lateral (
             select case when v.connected > 0 then v.connected else v.live end as daemons,
                    case when v.connected = 0 then v.live_before when s.unreachable_since is null then v.connected_before
                         else v.connected end as place) p
         cross join lateral (select predictu_dispatch.serving_daemons(p.daemons, s.requests_per_s_max) as serving) n
         where s.instance = heartbeat.instance
    ), counted as (
        select s.operator_id,
               predictu_dispatch.granted_share(f.interactive, s.interactive_max, v.others_interactive, s.interactive_slots,
                                               a.interactive_used)::integer as interactive_slots,
               predictu_dispatch.granted_share(f.settlement, s.settlement_max, v.others_settlement, s.settlement_slots,
                                               a.settlement_used)::integer as settlement_slots,
               case when f.per_s is not null
                    then predictu_dispatch.granted_share(f.per_s, s.requests_per_s_max, v.others_per_s,
                                                         coalesce(s.requests_per_s, 0),
                                                         coalesce(a.requests_per_s_used, s.requests_per_s_max))
               end as requests_per_s
          from predictu_dispatch.share s
          join divided v on v.operator_id = s.operator_id
          join fair f on f.operator_id = s.operator_id
          join requested a on a.operator_id = s.operator_id
         where s.instance = heartbeat.instance
    ), written as (
        update predictu_dispatch.share s
           set interactive_slots = n.interactive_slots, settlement_slots = n.settlement_slots,
               requests_per_s = n.requests_per_s
          from counted n
         where s.operator_id = n.operator_id and s.instance = heartbeat.instance
           and (s.interactive_slots, s.settlement_slots, s.requests_per_s)
               is distinct from (n.interactive_slots, n.settlement_slots, n.requests_per_s)
    )
    -- It must not reuse slots that it still has above its share.
    select n.operator_id, least(n.interactive_slots, f.interactive), least(n.settlement_slots, f.settlement),
           least(n.requests_per_s, f.per_s),
           (n.interactive_slots, n.settlement_slots, n.requests_per_s)
               is not distinct from (f.interactive, f.settlement, f.per_s)
      from counted n join fair f on f.operator_id = n.operator_id;
end $$;

revoke all on function predictu_dispatch.heartbeat from public;
grant execute on function predictu_dispatch.heartbeat to predictu_dispatcher;
