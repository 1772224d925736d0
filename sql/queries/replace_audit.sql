-- An old part leaves the audit, and its successor takes its place if anything is needed. Raises 55P03: ask again a little later.
-- $1 months to keep; $2 part; $3 whether anything is needed
select predictu_dispatch.replace_audit($1, $2, $3)
