-- What an audit row has of the request and of the answer.
-- $1 operator_id, $2 report_id, $3 started_at
select a.request_body, a.request_headers::text as request_headers, a.response_body, a.response_headers::text as response_headers,
       a.error, clock_timestamp() as read_at
  from predictu_dispatch.attempt a
 where a.operator_id = $1 and a.report_id = $2 and a.started_at = $3
