-- Returns the entries of interventions, keys and removals. Its caller restricts written_in, and the
-- query is inlined there.
create or replace function predictu_dispatch.audit_sparse_entries()
returns table (operator_id text, written_in bigint, entry_id uuid, leaf bytea)
language sql stable
begin atomic
    select i.operator_id, i.written_in, i.intervention_id,
           sha256(decode('00', 'hex') || predictu_dispatch.audit_intervention_entry(i))
      from predictu_dispatch.intervention i
    union all
    select k.operator_id, k.written_in, k.first_seen_id,
           sha256(decode('00', 'hex') || predictu_dispatch.audit_key_entry(k, 'first_seen'))
      from predictu_dispatch.signing_key k
    union all
    select k.operator_id, k.retired_in, k.retired_id,
           sha256(decode('00', 'hex') || predictu_dispatch.audit_key_entry(k, 'retired'))
      from predictu_dispatch.signing_key k where k.retired_id is not null
    union all
    select r.operator_id, r.written_in, r.removal_id,
           sha256(decode('00', 'hex') || predictu_dispatch.audit_removal_entry(r))
      from predictu_dispatch.audit_removal r;
end;

revoke all on function predictu_dispatch.audit_sparse_entries from public;
