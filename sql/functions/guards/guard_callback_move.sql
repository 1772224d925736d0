-- Refuses a change of a callback that predictu_dispatch/core/specification.py does not allow; a
-- test compares the two. The checks are in the function, not in the trigger's WHEN: each statement
-- parses a long WHEN again, which takes longer than settling a bet.
create or replace function predictu_dispatch.guard_callback_move() returns trigger language plpgsql as $$
begin
    if
        (old.state <> new.state and not (
            (old.state = 'waiting' and new.state in ('ready', 'cancelled'))
            or (old.state = 'ready' and new.state in ('in_flight', 'exhausted', 'cancelled'))
            or (old.state = 'in_flight' and new.state in ('delivered', 'rejected', 'ready', 'exhausted'))
            -- A retry by a person: never of a debit, nor of a method without a bet, whose caller is
            -- gone.
            or (old.state in ('rejected', 'exhausted') and new.state = 'ready'
                and old.method not in ('PING', 'BALANCE', 'BET_MAKE'))
        ))
        or (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.review_since is null)
        or (old.effect <> new.effect
            and not (old.effect = 'none' or (old.effect = 'unknown' and new.effect = 'applied')))
        or new.attempts <> old.attempts + (old.state = 'ready' and new.state = 'in_flight')::integer
        or (old.retry_stopped and not new.retry_stopped)
        or (old.amount_format is not null and new.amount_format is distinct from old.amount_format)
        or (old.operator_id, old.request_id, old.method, old.lane, old.created_at)
           <> (new.operator_id, new.request_id, new.method, new.lane, new.created_at)
        or old.bet_id is distinct from new.bet_id
        -- Compared as bytes: 500 and 500.0 are equal numbers and different bodies.
        or record_image_ne(row(old.params), row(new.params))
    then
        raise exception using errcode = 'PD900',
            message = format('callback %s of operator %s (%s) must not go from %s, effect %s, attempt %s '
                             'to %s, effect %s, attempt %s',
                             old.request_id, old.operator_id, old.method, old.state, old.effect, old.attempts,
                             new.state, new.effect, new.attempts),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes; identity and content never change.';
    end if;
    return new;
end $$;

revoke all on function predictu_dispatch.guard_callback_move from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_move') then
        create trigger callback_move before update on predictu_dispatch.callback
            for each row execute function predictu_dispatch.guard_callback_move();
    end if;
end $$;
