-- What is left of the bets with an id that retention removed; three at most.
-- $1 operator_ids; $2 bet_id
select r.operator_id, r.state, r.removed_at
  from unnest($1::text[]) as named (operator_id)
  join predictu_dispatch.bet_tombstone r on r.operator_id = named.operator_id and r.bet_id = $2
 order by r.removed_at desc limit 3
