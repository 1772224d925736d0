-- What is left of callbacks that retention removed and whose ids are in a range; three at most.
-- $1 the first id; $2 the last id; $3 operator_id, or null for any
select r.operator_id, r.request_id, r.method, r.state, r.removed_at
  from unnest(case when $3::text is null then array(select o.operator_id from predictu_dispatch.operator o)
                   else array[$3] end) as named (operator_id)
 cross join lateral (
     select r.operator_id, r.request_id, r.method, r.state, r.removed_at
       from predictu_dispatch.request_tombstone r
      where r.operator_id = named.operator_id and r.request_id between $1 and $2 and r.state is not null
      order by r.request_id desc limit 3
 ) r
 order by r.removed_at desc limit 3
