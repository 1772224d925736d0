-- All audit rows of a callback; a late answer follows the row that decided its attempt.
-- $1 operator_id; $2 request_id
select attempt, evidence, verdict, reason, instance, started_at, finished_at, url, key_id, request_headers::text as request_headers,
       request_body, response_status, response_headers::text as response_headers, response_body, response_truncated, connect_ms,
       first_byte_ms, total_ms, error, encode(response_body_sha256, 'hex') as response_body_sha256, response_body_repeats
  from predictu_dispatch.attempt
 where operator_id = $1 and request_id = $2
 order by attempt, verdict = 'late', finished_at
