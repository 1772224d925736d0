-- What is left of a bet that retention removed.
-- $1 operator_id; $2 bet_id
select r.state, r.removed_at from predictu_dispatch.bet_tombstone r where r.operator_id = $1 and r.bet_id = $2
