-- The newest checkpoint of a log; no row if there is no such log.
-- $1 operator_id
select size, checkpoint from predictu_dispatch.witness_newest($1)
