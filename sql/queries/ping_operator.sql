-- Starts a PING, or returns the one in flight.
-- $1 operator_id
select predictu_dispatch.ping_operator($1) as request_id
