-- Refuses a bet that has the bet_id or the placement of a removed one. It runs after the insert,
-- because the insert may have waited for the removal of that very bet. The trigger's name sorts
-- before bet_matches_callbacks, which would see what an old snapshot still shows.
create or replace function predictu_dispatch.guard_tombstone() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off as $$
begin
    if exists (select from predictu_dispatch.bet_tombstone r
                where r.operator_id = new.operator_id and r.bet_id = new.bet_id) then
        perform predictu_dispatch.refuse_for_bet(new.operator_id, new.bet_id, 'placement or adoption', null, null);
    elsif exists (select from predictu_dispatch.request_tombstone r
                   where r.operator_id = new.operator_id and r.request_id = new.placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s belongs to a callback or bet that was removed',
                             new.placement_request_id, new.operator_id),
            hint = 'Each debit belongs to one bet; use a new id for a new placement.';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot older than the removal does not show the tombstone. Inserting one then raises
        -- 40001 at its unique key.
        begin
            insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state)
            values (new.operator_id, new.bet_id, new.state) on conflict do nothing;
            insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
            values (new.operator_id, new.placement_request_id, 'BET_MAKE') on conflict do nothing;
            raise exception using errcode = 'PD901', message = 'undone';
        exception when sqlstate 'PD901' then
            null;
        end;
    end if;
    return null;
end $$;

revoke all on function predictu_dispatch.guard_tombstone from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet'::regclass and tgname = 'bet_differs_from_tombstones') then
        create trigger bet_differs_from_tombstones after insert on predictu_dispatch.bet
            for each row execute function predictu_dispatch.guard_tombstone();
    end if;
end $$;
