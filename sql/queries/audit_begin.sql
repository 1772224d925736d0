-- Begins the logs of all operators that have none; returns them.
-- $1 origin; $2 further operators
select predictu_dispatch.audit_begin($1, $2) as begun
