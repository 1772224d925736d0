-- How many callbacks of an operator need review, by method: those that may be retried, and the
-- others. No row for an unknown operator.
-- $1 operator_id; $2 method, or null for any
select o.operator_id, c.method, count(c.request_id) filter (where c.state in ('rejected', 'exhausted')) as retriable,
       count(c.request_id) filter (where c.state not in ('rejected', 'exhausted')) as others,
       clock_timestamp() as counted_at
  from predictu_dispatch.operator o
  left join predictu_dispatch.callback c
    on c.operator_id = o.operator_id and c.review_since is not null and ($2::text is null or c.method = $2)
 where o.operator_id = $1
 group by o.operator_id, c.method
 order by c.method
