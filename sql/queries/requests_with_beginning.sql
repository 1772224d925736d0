-- Callbacks whose ids are in a range, the newest first: those of an id, or of its beginning. A range
-- of the primary key for each operator.
-- $1 the first id; $2 the last id; $3 operator_id, or null for any; $4 limit
select c.operator_id, c.request_id, c.method, c.created_at
  from unnest(case when $3::text is null then array(select o.operator_id from predictu_dispatch.operator o)
                   else array[$3] end) as named (operator_id)
 cross join lateral (
     select c.operator_id, c.request_id, c.method, c.created_at
       from predictu_dispatch.callback c
      where c.operator_id = named.operator_id and c.request_id between $1 and $2
      order by c.request_id desc limit $4
 ) c
 order by c.created_at desc, c.operator_id, c.request_id limit $4
