-- A player's bets by the time of their placement.
create index concurrently if not exists bet_of_player on predictu_dispatch.bet (operator_id, player_id, created_at);
