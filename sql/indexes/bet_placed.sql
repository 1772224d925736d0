-- An operator's bets by the time of their placement. Its order is not that of the other searches, so
-- that the planner never reads all bets through it to find those of an amount.
create index concurrently if not exists bet_placed on predictu_dispatch.bet (operator_id, created_at desc nulls last);
