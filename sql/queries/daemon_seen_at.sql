-- The last heartbeat of the daemon with a name.
-- $1 instance
select seen_at from predictu_dispatch.daemon where instance = $1
