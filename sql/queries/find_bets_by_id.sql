-- Bets with an id, the newest first: at most $8 of each operator.
-- $1 operator_ids; $2 bet_id; $3 placed at or after, or null; $4 placed before, or null; $5, $6
-- and $7 the time, operator and bet of the last one before, or null; $8 limit
select found.operator_id as source, found.operator_id, found.bet_id, found.created_at as at
  from unnest($1::text[]) as named (operator_id)
 cross join lateral (
     select b.operator_id, b.bet_id, b.created_at from predictu_dispatch.bet b
      where b.operator_id = named.operator_id and b.bet_id = $2
        and b.created_at >= coalesce($3::timestamptz, '-infinity') and b.created_at < coalesce($4::timestamptz, 'infinity')
        and b.created_at <= coalesce($5::timestamptz, 'infinity')
        and (b.created_at, b.operator_id, b.bet_id) < (coalesce($5, 'infinity'), coalesce($6::text, ''), coalesce($7::text, ''))
      order by b.created_at desc, b.bet_id desc limit $8
 ) found
 order by found.created_at desc, found.operator_id desc, found.bet_id desc
