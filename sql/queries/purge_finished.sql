-- Removes the old bets and callbacks in the next blocks of the table; next_block is null at its
-- end.
-- $1 months to keep; $2 blocks
select callbacks, bets, locked, next_block, blocks_all, held from predictu_dispatch.purge_finished($1, $2)
