-- Those of the operators that are retired.
-- $1 operator ids
select o.operator_id, o.retired_at, o.retired_by
  from predictu_dispatch.operator o
 where o.operator_id = any ($1) and o.retired_at is not null
 order by o.operator_id
