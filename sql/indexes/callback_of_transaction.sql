-- Callbacks by the operator's transaction id. Only the settle that stores the id inserts an entry.
create index concurrently if not exists callback_of_transaction
    on predictu_dispatch.callback (operator_id, operator_transaction_id, created_at)
    where operator_transaction_id is not null;
