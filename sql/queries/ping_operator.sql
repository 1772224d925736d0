-- Starts a PING, or joins the one that is under way; see ping_operator() in 0008_interventions.sql.
-- $1 operator_id
select predictu_dispatch.ping_operator($1) as request_id
