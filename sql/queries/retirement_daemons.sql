-- The daemons seen within a day that serve an operator, and the key that each signs with; null if it
-- does not tell, because it is of an earlier release.
-- $1 operator_id
select d.instance,
       d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second' as is_live,
       d.signing_keys #>> array[$1, 'key_id'] as key_id,
       extract(epoch from now() - coalesce((d.signing_keys #>> array[$1, 'since'])::timestamptz, d.started_at))::double precision
           as signs_for_s,
       extract(epoch from now() - d.seen_at)::double precision as seen_s_ago
  from predictu_dispatch.daemon d
 where d.seen_at > now() - interval '1 day'
   and (d.signing_keys ? $1
        or d.signing_keys is null
           and exists (select from predictu_dispatch.share s where s.operator_id = $1 and s.instance = d.instance))
 order by d.instance
