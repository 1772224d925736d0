-- Stores a verified cosignature.
-- $1 operator_id; $2 witness; $3 size; $4 the signature line
select predictu_dispatch.witness_cosigned($1, $2, $3, $4)
