-- Classifies the run's lines and our rows, and stores the result.
-- $1 operator_id, $2 run_id, $3 sources, $4 lines_read, $5 lines_ignored, $6 lines_unreadable,
-- $7 the first unreadable lines, $8 and $9 the period that the ledger covers
select r.run_id from predictu_dispatch.finish_reconciliation($1, $2, $3::jsonb, $4, $5, $6, $7::jsonb, $8, $9) r
