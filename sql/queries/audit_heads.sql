-- Returns the head of each log with its cosignatures and its last verification, and the time since
-- everything was sealed.
select h.unsealed_s, h.operator_id, h.size, h.checkpoint, h.cosignatures, h.verified_s, h.faults
  from predictu_dispatch.audit_heads() h
