-- Each log with its head, the sizes of its tiles and checkpoints, and the sizes that earlier
-- verifications and witnesses saw; and each operator that must have a log. An operator must have one
-- if the transaction that wrote its row last is visible in sealed_until.
-- $1 operator_id, or null for all
select known.operator_id, l.origin, l.start_id, l.started_at, l.attempts_before, l.interventions_before,
       h.size, h.root, h.checkpoint, h.updated_at, coalesce(t.size, 0) as tiles_size,
       c.size as checkpoint_size, c.signed_at as checkpoint_at, v.size as verified_size, v.verified_at, v.faults,
       greatest(k.size, w.size) as witnessed_size,
       exists (select from predictu_dispatch.operator o
                where o.operator_id = known.operator_id
                  and pg_visible_in_snapshot(
                      (x.now - (x.now - o.xmin::text::bigint & 4294967295))::text::xid8, p.sealed_until)) as needs_log
  from (select operator_id from predictu_dispatch.operator
         union select operator_id from predictu_dispatch.audit_log
         union select operator_id from predictu_dispatch.audit_head
         union select operator_id from predictu_dispatch.audit_verification
         union select operator_id from predictu_dispatch.audit_witness) known
  left join predictu_dispatch.audit_log l on l.operator_id = known.operator_id
  left join predictu_dispatch.audit_head h on h.operator_id = known.operator_id
  left join predictu_dispatch.audit_position p on true
 cross join (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint) x (now)
  left join lateral (select t.tile * 256 + octet_length(t.hashes) / 32 as size from predictu_dispatch.audit_tile t
                      where t.operator_id = known.operator_id and t.level = 0 order by t.tile desc limit 1) t on true
  left join lateral (select c.size, c.signed_at from predictu_dispatch.audit_checkpoint c
                      where c.operator_id = known.operator_id order by c.size desc limit 1) c on true
  left join lateral (select k.size from predictu_dispatch.audit_cosignature k
                      where k.operator_id = known.operator_id order by k.size desc limit 1) k on true
  left join lateral (select max(w.size) as size from predictu_dispatch.audit_witness w
                      where w.operator_id = known.operator_id) w on true
  left join lateral (select v.size, v.verified_at, v.faults from predictu_dispatch.audit_verification v
                      where v.operator_id = known.operator_id order by v.verified_at desc limit 1) v on true
 where $1::text is null or known.operator_id = $1
 order by known.operator_id
