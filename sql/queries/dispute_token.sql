-- The token of an audit row.
-- $1 operator_id, $2 request_id, $3 attempt, $4 report_id
select predictu_dispatch.token_of($1, $2, $3, $4) as token
