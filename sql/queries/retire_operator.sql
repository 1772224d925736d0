-- Retires an operator that is gone for good.
-- $1 operator_id; $2 reason; $3 done_by
select operator_id, retired_at, retired_by, retire_reason
  from predictu_dispatch.retire_operator($1, $2, $3)
