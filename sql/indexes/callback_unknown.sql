-- Final callbacks of bets that the operator may have applied: for the opening and closing list of a
-- statement.
create index concurrently if not exists callback_unknown
    on predictu_dispatch.callback (operator_id, finished_at, request_id)
    where effect = 'unknown' and bet_id is not null and finished_at is not null;
