-- Stores that a witness did not cosign.
-- $1 operator_id; $2 witness; $3 why; $4 whether it refused
select predictu_dispatch.witness_failed($1, $2, $3, $4)
