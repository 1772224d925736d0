-- The daemons seen lately, the last seen first, with each one's slots in an operator's lane and how
-- many are in use.
-- $1 operator_id; $2 lane
with leased as (
    select c.leased_by, count(*) as in_flight
      from predictu_dispatch.callback c
     where c.state = 'in_flight' and c.operator_id = $1 and c.lane = $2
     group by c.leased_by
)
select d.instance, d.host, d.started_at, d.seen_at, d.clock_ahead_s,
       d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second' as is_live,
       s.operator_id is not null as has_file,
       coalesce(case $2 when 'interactive' then s.interactive_slots else s.settlement_slots end, 0) as slots,
       coalesce(case $2 when 'interactive' then s.interactive_max else s.settlement_max end, 0) as slots_max,
       s.unreachable_since, coalesce(s.requests_per_s_max, 0) as requests_per_s_max, coalesce(leased.in_flight, 0) as in_flight
  from predictu_dispatch.daemon d
  left join predictu_dispatch.share s on s.operator_id = $1 and s.instance = d.instance
  left join leased on leased.leased_by = d.instance
 order by d.seen_at desc, d.instance
