-- The operators that have an item with this id: one, because the id is computed from it too.
-- $1 item_id; $2 operator_id, or null for any
select o.operator_id
  from predictu_dispatch.operator o
 where ($2::text is null or o.operator_id = $2)
   and exists (select from predictu_dispatch.reconciliation_item i where i.operator_id = o.operator_id and i.item_id = $1)
 order by o.operator_id
