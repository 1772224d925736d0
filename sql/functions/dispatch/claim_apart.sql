-- Claims as claim() does, but each operator alone, and an operator for which that fails callback
-- by callback: so a row that the database cannot read or change stops no other callback. Returns the
-- claimed callbacks, and a row with the SQLSTATE and the message for each callback that failed. Its
-- request_id is null if no callback can be named: its row is unreadable, or too many failed. Around
-- an unreadable row the queue is read from both ends. The caller leaves failed callbacks out for a
-- while, by `set_aside`. An outage fails the whole call.
create or replace function predictu_dispatch.claim_apart(
    instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[],
    rollback_leases_s double precision[], amount_formats text[], set_aside uuid[]
) returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer,
    effect text, reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision,
    leased_at timestamptz, lease_s double precision, amount_format text, minor_digits integer,
    placement_ended_s_ago double precision, failed_sqlstate text, failed_message text
) language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    want record;
    head record;
    failures_left integer;
    slots_left integer;
    claimed integer;
    is_newest_first boolean;
begin
    for want in
        select w.*, o.circuit = 'half_open' as is_half_open, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats)
               as w (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format)
          join predictu_dispatch.operator o on o.operator_id = w.operator_id
    loop
        begin
            return query
            select c.*, null::text, null::text
              from predictu_dispatch.claim(
                       instance, array[want.operator_id], array[want.lane], array[want.free_slots], array[want.lease_s],
                       array[want.rollback_lease_s], array[want.amount_format], null, set_aside) c;
            continue;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
        end;
        failures_left := 20;
        slots_left := want.free_slots;
        is_newest_first := false;
        while slots_left > 0 loop
            -- The callback that claim() takes next.
            begin
                head := null;
                if want.is_half_open then
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.request_id = want.ping_request_id and c.state = 'ready'
                       and c.request_id <> all(set_aside);
                elsif is_newest_first then
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                       and coalesce(c.expires_at, 'infinity') > now() and c.request_id <> all(set_aside)
                     order by c.due_at desc limit 1 for no key update skip locked;
                else
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                       and coalesce(c.expires_at, 'infinity') > now() and c.request_id <> all(set_aside)
                     order by c.due_at limit 1 for no key update skip locked;
                end if;
            exception when others then
                perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                if is_newest_first then
                    exit;
                end if;
                is_newest_first := true;
                operator_id := want.operator_id;
                request_id := null;
                failed_sqlstate := sqlstate;
                failed_message := sqlerrm;
                return next;
                continue;
            end;
            exit when head.request_id is null;
            begin
                return query
                select c.*, null::text, null::text
                  from predictu_dispatch.claim(
                           instance, array[want.operator_id], array[want.lane], array[1], array[want.lease_s],
                           array[want.rollback_lease_s], array[want.amount_format], array[head.due_at], set_aside) c;
                get diagnostics claimed = row_count;
                exit when claimed = 0;
                slots_left := slots_left - 1;
            exception when others then
                perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                set_aside := set_aside || head.request_id;
                failures_left := failures_left - 1;
                operator_id := want.operator_id;
                request_id := head.request_id;
                failed_sqlstate := sqlstate;
                failed_message := sqlerrm;
                return next;
                exit when failures_left = 0;
            end;
        end loop;
    end loop;
end $$;

revoke all on function predictu_dispatch.claim_apart from public;
grant execute on function predictu_dispatch.claim_apart to predictu_dispatcher;
