-- Refuses the removal of a callback that is not final or needs review, and of a bet that has not
-- ended. Always enabled, also with session_replication_role = replica.
create or replace function predictu_dispatch.refuse_delete() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('%s %s of operator %s must not be removed: it is %s', tg_table_name,
                         coalesce(to_jsonb(old) ->> 'request_id', to_jsonb(old) ->> 'bet_id'), old.operator_id,
                         old.state),
        hint = 'Only callbacks and bets that ended and need no review are removed; see purge_finished().';
end $$;

revoke all on function predictu_dispatch.refuse_delete from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_deleted_when_final') then
        create trigger callback_deleted_when_final before delete on predictu_dispatch.callback
            for each row when (old.finished_at is null or old.review_since is not null)
            execute function predictu_dispatch.refuse_delete();
        alter table predictu_dispatch.callback enable always trigger callback_deleted_when_final;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet'::regclass and tgname = 'bet_deleted_when_final') then
        create trigger bet_deleted_when_final before delete on predictu_dispatch.bet
            for each row when (old.state in ('placing', 'open'))
            execute function predictu_dispatch.refuse_delete();
        alter table predictu_dispatch.bet enable always trigger bet_deleted_when_final;
    end if;
end $$;
