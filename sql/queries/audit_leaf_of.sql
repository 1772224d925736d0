-- The index of an entry in its log.
-- $1 operator_id, $2 the entry's id, $3 started_at of an attempt
select t.tile * 256 + n as index, substr(t.hashes, n * 32 + 1, 32) as leaf_hash
  from predictu_dispatch.audit_tile t, generate_series(0, octet_length(t.report_ids) / 16 - 1) n
 where t.operator_id = $1 and t.level = 0
   and tstzrange(t.started_from, t.started_until, '[]') @> $3::timestamptz
   and substr(t.report_ids, n * 16 + 1, 16) = uuid_send($2)
 order by 1
