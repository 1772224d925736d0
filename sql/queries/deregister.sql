-- Frees all shares of this daemon.
-- $1 instance; $2 session
select predictu_dispatch.deregister($1, $2)
