-- compatible_from: 0001
-- outcome() says when a callback became final, and outcome_of_bet() returns the same for a bet, also
-- after retention removed it. The new columns are null in older tombstones.
drop function if exists predictu_dispatch.outcome(text, uuid);
delete from predictu_dispatch.schema_function where name = 'producers/outcome.sql';
alter table predictu_dispatch.request_tombstone add column finished_at timestamptz;
alter table predictu_dispatch.bet_tombstone
    add column placement_request_id uuid,
    add column terminal_request_id uuid;
