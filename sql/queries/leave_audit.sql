-- An old part of which everything is needed stays as it is.
-- $1 months to keep; $2 part
select predictu_dispatch.leave_audit($1, $2)
