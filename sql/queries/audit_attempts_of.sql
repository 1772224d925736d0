-- The attempts of a callback, deciding rows first.
-- $1 operator_id, $2 request_id
select a.attempt, a.verdict, a.report_id, a.started_at from predictu_dispatch.attempt a
 where a.operator_id = $1 and a.request_id = $2
 order by a.attempt, a.verdict = 'late', a.finished_at
