-- The operators that producers may enqueue for.
select operator_id, enabled, updated_at from predictu_dispatch.operator order by operator_id
