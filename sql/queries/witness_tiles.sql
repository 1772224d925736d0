-- Tiles of a log, with all the hashes that they have now.
-- $1 operator_id; $2 levels; $3 numbers, in the same order
select level, tile, hashes from predictu_dispatch.witness_tiles($1, $2, $3)
