-- The next step of an old part's end, copied, replaced or dropped; is_done with the last one. Raises 55P03: ask again a little later.
-- $1 months to keep; $2 part; $3 blocks
select step, scanned, needed, is_done from predictu_dispatch.purge_audit($1, $2, $3)
