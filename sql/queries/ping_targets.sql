-- The operators that could be pinged, with the running daemons that serve each.
-- $1 the operator; null: all
select o.operator_id, o.enabled and o.retired_at is null as enabled, o.paused_at, o.paused_by, o.pause_reason,
       array(select d.instance
               from predictu_dispatch.share s
               join predictu_dispatch.daemon d on d.instance = s.instance
              where s.operator_id = o.operator_id
                and d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second'
              order by d.instance) as daemons,
       has_function_privilege('predictu_dispatch.ping_operator(text)', 'execute') as may_ping
  from predictu_dispatch.operator o
 where case when $1::text is null then o.retired_at is null else o.operator_id = $1 end
 order by o.operator_id
