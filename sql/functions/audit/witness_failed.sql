-- Stores that a witness did not cosign, and why. A refusal is cleared when the witness cosigns again.
create or replace function predictu_dispatch.witness_failed(
    operator_id text, witness text, failure text, is_refused boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.audit_witness as w (operator_id, witness, failed_at, is_refused, failure, failures)
    values (witness_failed.operator_id, witness_failed.witness, clock_timestamp(), witness_failed.is_refused,
            left(witness_failed.failure, 1000), 1)
    on conflict (operator_id, witness) do update
       set failed_at = excluded.failed_at, is_refused = w.is_refused or excluded.is_refused,
           failure = case when w.is_refused and not excluded.is_refused then w.failure else excluded.failure end,
           failures = w.failures + 1;
end $$;

revoke all on function predictu_dispatch.witness_failed from public;
grant execute on function predictu_dispatch.witness_failed to predictu_dispatcher;
