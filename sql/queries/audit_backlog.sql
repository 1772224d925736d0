-- Returns one step of the backlog; see the function.
-- Times are text, because a driver may not know every time that Postgres does.
-- $1 blocks of a partition
select b.revision, b.backlog_part, b.backlog_source, b.backlog_block, b.operator_id, b.origin, b.size, b.root, b.level,
       b.tile, b.is_new, b.hashes, b.report_ids, b.started_from::text, b.started_until::text
  from predictu_dispatch.audit_backlog($1) b
