-- Records the result of `audit verify` for one operator's log.
create or replace function predictu_dispatch.record_verification(
    operator_id text, size bigint, faults bigint, first_faults jsonb
) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into predictu_dispatch.audit_verification (operator_id, size, faults, first_faults, verified_by)
    values (record_verification.operator_id, record_verification.size, record_verification.faults,
            record_verification.first_faults, session_user)
$$;

revoke all on function predictu_dispatch.record_verification from public;
grant execute on function predictu_dispatch.record_verification to predictu_auditor;
