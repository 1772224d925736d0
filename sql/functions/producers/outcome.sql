-- Returns what is known of a callback: its state, reason, effect, the operator's status, transaction
-- id and balance, and when it became final. A column is null while its value is unknown; there is no
-- row for an unknown request. For a callback that retention removed, state, reason and effect remain,
-- and finished_at if it was removed by this release or a later one. Raises PD008 (the login may not act
-- for this operator).
create or replace function predictu_dispatch.outcome(operator_id text, request_id uuid)
returns table (state text, reason text, effect text, operator_status text, operator_transaction_id text, balance bigint,
               finished_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    perform predictu_dispatch.check_producer_scope(outcome.operator_id);
    return query
    select c.state, c.reason, c.effect, c.operator_status, c.operator_transaction_id, c.balance, c.finished_at
      from predictu_dispatch.callback c
     where c.operator_id = outcome.operator_id and c.request_id = outcome.request_id;
    if not found then
        return query
        select r.state, r.reason, r.effect, null::text, null::text, null::bigint, r.finished_at
          from predictu_dispatch.get_request_tombstone(outcome.operator_id, outcome.request_id) r
         where r.state is not null;
    end if;
end $$;

revoke all on function predictu_dispatch.outcome from public;
grant execute on function predictu_dispatch.outcome to predictu_producer;
