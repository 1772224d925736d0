-- Checks a bet's new state against its callbacks, after the statement that moved it.
create or replace function predictu_dispatch.guard_bet_state() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $$
declare
    seen record;
    fault text;
begin
    select coalesce(bool_or(c.method = 'BET_MAKE' and c.state in ('ready', 'in_flight')), false) as debit_may_go,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.state = 'delivered'), false) as debited,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.effect <> 'none'), false) as maybe_debited,
           coalesce(bool_or(c.method = 'BET_MAKE'), false) as placed_here,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state not in ('waiting', 'cancelled')), false)
               as terminal_may_go,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state = 'delivered'), false) as ended
      into seen
      from predictu_dispatch.callback c
     where c.operator_id = new.operator_id and c.bet_id = new.bet_id;
    fault := case
        when new.state = 'placing' and seen.terminal_may_go
            then 'its terminal callback could reach the operator before its debit'
        when new.state <> 'placing' and seen.debit_may_go then 'its debit could still be sent'
        when new.state = 'open' and seen.terminal_may_go then 'a terminal callback is already being sent'
        when new.state = 'open' and seen.placed_here and not seen.debited then 'its debit was never confirmed'
        when new.state = 'closed' and not seen.ended then 'no terminal callback was delivered'
        when new.state = 'void' and seen.debited then 'its debit was confirmed'
        when new.state = 'void' and seen.maybe_debited then 'its debit may have taken place'
        when new.state = 'void' and seen.terminal_may_go then 'a terminal callback is already being sent'
    end;
    if fault is not null then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not be %s: %s', new.bet_id, new.operator_id, new.state, fault),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return null;
end $$;

revoke all on function predictu_dispatch.guard_bet_state from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet'::regclass and tgname = 'bet_matches_callbacks') then
        create trigger bet_matches_callbacks after insert or update of state on predictu_dispatch.bet
            for each row execute function predictu_dispatch.guard_bet_state();
    end if;
end $$;
