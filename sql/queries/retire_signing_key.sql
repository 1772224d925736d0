-- Records that a key is retired; false if it was never registered.
-- $1 operator_id; $2 key id
select predictu_dispatch.retire_signing_key($1, $2) as is_known
