-- Gives back everything this daemon has a share of.
-- $1 instance; $2 session
select predictu_dispatch.leave($1, $2)
