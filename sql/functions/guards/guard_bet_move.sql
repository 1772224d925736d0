-- Refuses a change of a bet that predictu_dispatch/core/specification.py does not allow; a test
-- compares the two.
create or replace function predictu_dispatch.guard_bet_move() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if
        (old.state <> new.state and not (
            (old.state = 'placing' and new.state in ('open', 'closing', 'void'))
            or (old.state = 'open' and new.state = 'closing')
            or (old.state = 'closing' and new.state in ('closed', 'open'))
        ))
        or (old.operator_id, old.bet_id, old.player_id, old.currency, old.amount, old.placement_request_id)
           <> (new.operator_id, new.bet_id, new.player_id, new.currency, new.amount, new.placement_request_id)
    then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not go from %s to %s, nor change its terms',
                             old.bet_id, old.operator_id, old.state, new.state),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return new;
end $$;

revoke all on function predictu_dispatch.guard_bet_move from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet'::regclass and tgname = 'bet_move') then
        create trigger bet_move before update on predictu_dispatch.bet
            for each row execute function predictu_dispatch.guard_bet_move();
    end if;
end $$;
