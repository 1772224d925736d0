-- Returns what one turn of the sealer appends; see the function.
-- Times are text, because a driver may not know every time that Postgres does.
-- $1 rows at most; $2 how many transaction ids it reads on
select u.needs, u.revision, u.sealed_until, u.sealed_at, u.is_behind, u.has_backlog, u.operator_id, u.origin, u.size, u.root,
       u.level, u.tile, u.is_new, u.hashes, u.report_ids, u.started_from::text, u.started_until::text
  from predictu_dispatch.audit_unsealed($1, $2) u
