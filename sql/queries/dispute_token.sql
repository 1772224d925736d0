-- The token of an attempt, or null while it may be valid.
-- $1 operator_id, $2 request_id, $3 attempt
select predictu_dispatch.token_of($1, $2, $3) as token
