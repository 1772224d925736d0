-- Writes the new state of operators; returns those that were neither changed nor locked meanwhile.
-- $1 operator ids; $2 revisions; $3 circuits; $4 healths; $5 consecutive failures;
-- seconds, or null:
-- $6 since the last success, $7 since the last failure, $8 until the next PING; $9 start a PING
-- now; seconds of backoff, or null: $10 interactive, $11 settlement; the last failure, or nulls:
-- $12 reason, $13 HTTP status, $14 Location, $15 request_id, $16 attempt
select predictu_dispatch.write_circuits(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) as operator_id
