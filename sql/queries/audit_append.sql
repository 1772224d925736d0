-- Appends a turn to the logs if the revision is still the expected one; see the function.
-- $1 revision; $2 sealed_until; $3 sealed_at; $4 to $6 the backlog's part, source and block
-- $7 to $10 the heads: operator, size, root, checkpoint; $11 to $17 the tiles: operator, level, tile,
-- hashes, report_ids, started_from, started_until
select a.is_appended, a.operator_id, a.origin, a.size, a.root, a.checkpoint
  from predictu_dispatch.audit_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                                      $16::text[]::timestamptz[], $17::text[]::timestamptz[]) a
