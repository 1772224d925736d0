-- A part that was replaced, and gone through once more, is dropped.
-- $1 months to keep; $2 part
select predictu_dispatch.drop_audit($1, $2)
