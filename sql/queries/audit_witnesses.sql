-- The last answer of each witness for each log.
-- $1 operator_id, or null for all
select w.operator_id, w.witness, w.size, w.cosigned_at, w.failed_at, w.is_refused, w.failure, h.size as log_size
  from predictu_dispatch.audit_witness w
  left join predictu_dispatch.audit_head h on h.operator_id = w.operator_id
 where $1::text is null or w.operator_id = $1
 order by w.operator_id, w.witness
