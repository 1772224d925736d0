-- Stores a witness's cosignature of a stored checkpoint; the daemon has verified it.
create or replace function predictu_dispatch.witness_cosigned(
    operator_id text, witness text, size bigint, line text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.audit_cosignature (operator_id, size, witness, line)
    values (witness_cosigned.operator_id, witness_cosigned.size, witness_cosigned.witness, witness_cosigned.line)
    on conflict (operator_id, size, witness) do nothing;
    insert into predictu_dispatch.audit_witness as w (operator_id, witness, size, cosigned_at)
    values (witness_cosigned.operator_id, witness_cosigned.witness, witness_cosigned.size, clock_timestamp())
    on conflict (operator_id, witness) do update
       set size = greatest(w.size, excluded.size), cosigned_at = excluded.cosigned_at, failed_at = null,
           is_refused = false, failure = null, failures = 0;
end $$;

revoke all on function predictu_dispatch.witness_cosigned from public;
grant execute on function predictu_dispatch.witness_cosigned to predictu_dispatcher;
