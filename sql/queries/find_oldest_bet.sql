-- When the oldest bet that is still here was placed; null without one.
-- $1 operator_ids
select min(oldest.created_at) as at
  from unnest($1::text[]) as named (operator_id)
 cross join lateral (select b.created_at from predictu_dispatch.bet b
                      where b.operator_id = named.operator_id order by b.created_at nulls first limit 1) oldest
