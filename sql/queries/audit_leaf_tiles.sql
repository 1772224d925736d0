-- The next tiles of level 0.
-- $1 operator_id, $2 the first tile, $3 how many
select tile, hashes, coalesce(report_ids, '') as report_ids, started_from, started_until from predictu_dispatch.audit_tile
 where operator_id = $1 and level = 0 and tile >= $2
 order by tile
 limit $3
