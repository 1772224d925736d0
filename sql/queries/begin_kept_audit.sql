-- An empty successor for an old part of the audit.
-- $1 months to keep; $2 part
select predictu_dispatch.begin_kept_audit($1, $2)
