-- Ends callbacks as expire() does, but each alone: so a row that the database cannot read or
-- change keeps no other callback from its end. Returns what changed, and a row with the SQLSTATE and
-- the message for each callback that failed; its request_id is null if a row of this operator is
-- unreadable. The caller leaves failed callbacks out for a while, by `set_aside`. An outage fails
-- the whole call.
create or replace function predictu_dispatch.expire_apart(most integer, set_aside uuid[])
returns table (
    operator_id text, request_id uuid, method text, lane text, state text, reason text, cause text, attempt integer,
    failed_sqlstate text, failed_message text
) language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    o record;
    ending record;
begin
    perform predictu_dispatch.commit_durably();
    for o in
        select op.operator_id, op.paused_at is not null or op.circuit <> 'closed' as is_stopped
          from predictu_dispatch.operator op
    loop
        begin
            for ending in
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                       and c.bet_id is not null and c.request_id <> all(set_aside)
                     order by c.expires_at limit most) overdue_of_bets
                union
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                       and c.bet_id is null and c.request_id <> all(set_aside)
                     order by c.expires_at limit most) overdue
                union
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where o.is_stopped and c.operator_id = o.operator_id and c.state = 'ready'
                       and c.method in ('BALANCE', 'BET_MAKE') and c.request_id <> all(set_aside)
                     order by c.due_at desc limit most) awaited
            loop
                begin
                    return query
                    select c.*, null::text, null::text
                      from predictu_dispatch.expire_one(o.operator_id, ending.request_id) c;
                exception when others then
                    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                    operator_id := o.operator_id;
                    request_id := ending.request_id;
                    failed_sqlstate := sqlstate;
                    failed_message := sqlerrm;
                    return next;
                end;
            end loop;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
            operator_id := o.operator_id;
            request_id := null;
            failed_sqlstate := sqlstate;
            failed_message := sqlerrm;
            return next;
        end;
    end loop;
end $$;

revoke all on function predictu_dispatch.expire_apart from public;
grant execute on function predictu_dispatch.expire_apart to predictu_dispatcher;
