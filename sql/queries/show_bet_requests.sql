-- The callbacks of a bet, in the order in which they were enqueued.
-- $1 operator_id; $2 bet_id
select request_id from predictu_dispatch.callback where operator_id = $1 and bet_id = $2 order by created_at, request_id
