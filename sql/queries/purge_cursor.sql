-- The timestamp before which rows are old, and how far the callbacks are read for it.
-- $1 months to keep
select kept.cutoff, cursor.next_block, coalesce(cursor.next_block is null and cursor.locked = 0, false) as is_done,
       pg_relation_size('predictu_dispatch.callback') / current_setting('block_size')::bigint as blocks_all
  from (select predictu_dispatch.retention_cutoff($1) as cutoff) kept
  left join predictu_dispatch.purge_cursor cursor on cursor.cutoff = kept.cutoff
