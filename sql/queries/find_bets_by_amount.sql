-- Bets with a stake or a confirmed payout of an amount, the newest first: at most $9 of each operator,
-- currency and kind. The time is that of the placement, or of the payout's enqueueing.
-- $1 operator_ids, $2 currencies and $3 amounts in subunits; $4 at or after, or null; $5 before, or
-- null; $6, $7 and $8 the time, operator and bet of the last one before, or null; $9 limit
select found.source, found.operator_id, found.bet_id, found.created_at as at
  from unnest($1::text[], $2::text[], $3::bigint[]) as named (operator_id, currency, amount)
 cross join lateral (
     (select concat_ws(' ', 'stake', b.operator_id, b.currency) as source, b.operator_id, b.bet_id, b.created_at
        from predictu_dispatch.bet b
       where b.operator_id = named.operator_id and b.currency = named.currency and b.amount = named.amount
         and b.created_at >= coalesce($4::timestamptz, '-infinity') and b.created_at < coalesce($5::timestamptz, 'infinity')
         and b.created_at <= coalesce($6::timestamptz, 'infinity')
         and (b.created_at, b.operator_id, b.bet_id) < (coalesce($6, 'infinity'), coalesce($7::text, ''), coalesce($8::text, ''))
       order by b.created_at desc, b.bet_id desc limit $9)
     union all
     (select concat_ws(' ', 'payout', c.operator_id, named.currency), c.operator_id, c.bet_id, c.created_at
        from predictu_dispatch.callback c
       where c.operator_id = named.operator_id and c.state = 'delivered' and c.method in ('BET_WIN', 'BET_SELL')
         and predictu_dispatch.payout_of(c.params) = named.currency || ' ' || named.amount
         and c.created_at >= coalesce($4, '-infinity') and c.created_at < coalesce($5, 'infinity')
         and c.created_at <= coalesce($6, 'infinity')
         and (c.created_at, c.operator_id, c.bet_id) < (coalesce($6, 'infinity'), coalesce($7, ''), coalesce($8, ''))
       order by c.created_at desc, c.bet_id desc limit $9)
 ) found
 order by found.created_at desc, found.operator_id desc, found.bet_id desc
