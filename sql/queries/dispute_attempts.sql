-- The audit rows of a bet's callbacks, without what was sent and answered.
-- $1 operator_id, $2 bet_id
select c.request_id, a.method, a.attempt, a.verdict, a.evidence, a.reason, a.report_id, a.started_at, a.finished_at, a.instance,
       a.url, a.peer, a.key_id, a.response_status, a.error, a.token_sha256
  from predictu_dispatch.callback c
  join predictu_dispatch.attempt a on a.operator_id = c.operator_id and a.request_id = c.request_id
 where c.operator_id = $1 and c.bet_id = $2
 order by c.created_at, c.request_id, a.attempt, a.verdict = 'late', a.finished_at, a.report_id
