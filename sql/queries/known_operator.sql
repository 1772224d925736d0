-- A row if a daemon has registered the operator.
-- $1 operator_id
select o.operator_id from predictu_dispatch.operator o where o.operator_id = $1
