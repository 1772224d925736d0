-- What of an operator needs review, by method, and how much of it may be sent again; no row for an unknown operator.
-- $1 operator_id; $2 method or null for any
select o.operator_id, c.method, count(c.request_id) filter (where c.state in ('rejected', 'exhausted')) as redrivable,
       count(c.request_id) filter (where c.state not in ('rejected', 'exhausted')) as others, clock_timestamp() as counted_at
  from predictu_dispatch.operator o
  left join predictu_dispatch.callback c
    on c.operator_id = o.operator_id and c.review_since is not null and ($2::text is null or c.method = $2)
 where o.operator_id = $1
 group by o.operator_id, c.method
 order by c.method
