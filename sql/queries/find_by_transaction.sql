-- Callbacks with an operator's transaction id, the newest first: at most $8 of each operator.
-- $1 operator_ids; $2 operator_transaction_id; $3 enqueued at or after, or null; $4 enqueued before, or
-- null; $5, $6 and $7 the time, operator and request id of the last one before, or null; $8 limit
select found.operator_id as source, found.operator_id, found.request_id::text as request_id, found.created_at as at
  from unnest($1::text[]) as named (operator_id)
 cross join lateral (
     select c.operator_id, c.request_id, c.created_at from predictu_dispatch.callback c
      where c.operator_id = named.operator_id and c.operator_transaction_id = $2
        and c.created_at >= coalesce($3::timestamptz, '-infinity') and c.created_at < coalesce($4::timestamptz, 'infinity')
        and c.created_at <= coalesce($5::timestamptz, 'infinity')
        and (c.created_at, c.operator_id, c.request_id)
            < (coalesce($5, 'infinity'), coalesce($6::text, ''), coalesce($7::text, '00000000-0000-0000-0000-000000000000')::uuid)
      order by c.created_at desc, c.request_id desc limit $8
 ) found
 order by found.created_at desc, found.operator_id desc, found.request_id desc
