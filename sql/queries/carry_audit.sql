-- What is needed of the next blocks of an old part is copied; next_block is null at its end.
-- $1 months to keep; $2 part; $3 step; $4 from which block; $5 blocks
select scanned, needed, next_block from predictu_dispatch.carry_audit($1, $2, $3, $4, $5)
