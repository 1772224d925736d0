-- The operators that have a callback with this id; one primary key lookup for each operator.
-- $1 request_id; $2 operator_id, or null for any
select o.operator_id
  from predictu_dispatch.operator o
 where ($2::text is null or o.operator_id = $2)
   and exists (select from predictu_dispatch.callback c where c.operator_id = o.operator_id and c.request_id = $1)
 order by o.operator_id
