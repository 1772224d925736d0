-- Bets by their stake. The currency comes first, so that an operator's currencies can be listed.
create index concurrently if not exists bet_of_stake on predictu_dispatch.bet (operator_id, currency, amount, created_at);
