-- Confirmed payouts by their amount; a refund and a rollback have their bet's stake. Only the settle
-- that delivers inserts an entry.
create index concurrently if not exists callback_of_payout
    on predictu_dispatch.callback (operator_id, (predictu_dispatch.payout_of(params)), created_at)
    where state = 'delivered' and method in ('BET_WIN', 'BET_SELL');
