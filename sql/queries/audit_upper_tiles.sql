-- The tiles above level 0: one for 65,536 entries, and few above those.
-- $1 operator_id
select level, tile, hashes from predictu_dispatch.audit_tile
 where operator_id = $1 and level > 0
 order by level, tile
