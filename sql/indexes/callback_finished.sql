-- The final callbacks of bets in the order of `ledger`: a statement or reconciliation of a period reads
-- its part of one operator without a sort. Only the change that ends a callback inserts an entry.
create index concurrently if not exists callback_finished
    on predictu_dispatch.callback (operator_id, finished_at, request_id)
    where bet_id is not null and finished_at is not null;
