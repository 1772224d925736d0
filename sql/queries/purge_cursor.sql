-- The timestamp before which history is old, and how far the callbacks are purged for it.
-- $1 months to keep
select kept.cutoff, walk.next_block, coalesce(walk.next_block is null and walk.locked = 0, false) as is_done,
       pg_relation_size('predictu_dispatch.callback') / current_setting('block_size')::bigint as blocks_all
  from (select predictu_dispatch.retention_cutoff($1) as cutoff) kept
  left join (select w.cutoff, w.next_block, w.locked from predictu_dispatch.purge_cursor w) walk on walk.cutoff = kept.cutoff
