-- $1 operator_id, $2 level, $3 tile
select hashes from predictu_dispatch.audit_tile where operator_id = $1 and level = $2 and tile = $3
