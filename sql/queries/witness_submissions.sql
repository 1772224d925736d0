-- The checkpoints that a witness has not cosigned yet, one for each log.
-- $1 witness
select operator_id, size, checkpoint, cosigned_size, failures, failed_s_ago
  from predictu_dispatch.witness_submissions($1)
