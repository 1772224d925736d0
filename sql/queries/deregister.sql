-- Gives back everything this daemon has a share of.
-- $1 instance; $2 session
select predictu_dispatch.deregister($1, $2)
