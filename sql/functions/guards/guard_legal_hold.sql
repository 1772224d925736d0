-- Guards legal holds, for every role including the owner. A hold names an existing operator or bet. It
-- is lifted once, with the time, and never changed or deleted otherwise. Placing one waits for the
-- current step of a running retention and makes it read its months again. Lifting one makes the next
-- run read the callbacks again.
create or replace function predictu_dispatch.guard_legal_hold() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'INSERT' then
        if not exists (select from predictu_dispatch.operator o where o.operator_id = new.operator_id) then
            perform predictu_dispatch.refuse_params('legal_hold', format('unknown operator %L', left(new.operator_id, 80)),
                'A hold names an operator of the table operator.');
        elsif new.bet_id is not null
              and not exists (select from predictu_dispatch.bet b
                               where b.operator_id = new.operator_id and b.bet_id = new.bet_id)
              and not exists (select from predictu_dispatch.bet_tombstone b
                               where b.operator_id = new.operator_id and b.bet_id = new.bet_id) then
            perform predictu_dispatch.refuse_params('legal_hold', format('unknown bet %L', left(new.bet_id, 80)),
                'A hold names a bet of this operator, or none for the whole operator.');
        end if;
        perform predictu_dispatch.take_lock('retention', waits => true);
        delete from predictu_dispatch.audit_purge_cursor;
        return new;
    elsif tg_op = 'UPDATE' and old.lifted_at is null and new.lifted_at is not null
          and row(new.operator_id, new.bet_id, new.reason, new.placed_at)
              is not distinct from row(old.operator_id, old.bet_id, old.reason, old.placed_at) then
        perform predictu_dispatch.take_lock('retention', waits => true);
        delete from predictu_dispatch.purge_cursor;
        return new;
    end if;
    raise exception using errcode = 'PD900',
        message = format('a legal hold is never changed: %s is refused', tg_op),
        hint = 'Lift it: update predictu_dispatch.legal_hold set lifted_at = now() where … and lifted_at is null.';
end $$;

revoke all on function predictu_dispatch.guard_legal_hold from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.legal_hold'::regclass and tgname = 'legal_hold_guarded') then
        create trigger legal_hold_guarded before insert or update or delete on predictu_dispatch.legal_hold
            for each row execute function predictu_dispatch.guard_legal_hold();
        alter table predictu_dispatch.legal_hold enable always trigger legal_hold_guarded;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.legal_hold'::regclass and tgname = 'legal_hold_not_truncated') then
        create trigger legal_hold_not_truncated before truncate on predictu_dispatch.legal_hold
            for each statement execute function predictu_dispatch.guard_legal_hold();
        alter table predictu_dispatch.legal_hold enable always trigger legal_hold_not_truncated;
    end if;
end $$;
