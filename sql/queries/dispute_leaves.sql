-- The indices of entries that are no attempts. Reads all ids of the log.
-- $1 operator_id, $2 the entries' ids
select wanted.entry_id, t.tile * 256 + n as index, substr(t.hashes, n * 32 + 1, 32) as leaf_hash
  from predictu_dispatch.audit_tile t
 cross join unnest($2::uuid[]) as wanted (entry_id)
 cross join lateral generate_series(0, octet_length(t.report_ids) / 16 - 1) n
 where t.operator_id = $1 and t.level = 0
   and position(uuid_send(wanted.entry_id) in t.report_ids) > 0
   and substr(t.report_ids, n * 16 + 1, 16) = uuid_send(wanted.entry_id)
 order by 2
