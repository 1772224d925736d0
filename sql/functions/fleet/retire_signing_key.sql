-- Records that a key is retired: its file is removed, so it signs nothing any more. Returns false if
-- the key was never registered, because only daemons of an earlier release have signed with it.
create or replace function predictu_dispatch.retire_signing_key(operator_id text, key_id text)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- audit_restore() locks the table while it changes the offset; the next statement sees the new one.
    lock table predictu_dispatch.signing_key in row exclusive mode;
    update predictu_dispatch.signing_key k
       set retired_at = greatest(clock_timestamp(), k.first_seen_at), retired_id = gen_random_uuid(),
           -- As the default of written_in.
           retired_in = pg_current_xact_id()::text::bigint
                        + coalesce((select p.xid_offset from predictu_dispatch.audit_position p), 0)
     where k.operator_id = retire_signing_key.operator_id and k.kid = key_id and k.retired_at is null;
    return exists (select from predictu_dispatch.signing_key k
                    where k.operator_id = retire_signing_key.operator_id and k.kid = key_id);
end $$;

revoke all on function predictu_dispatch.retire_signing_key from public;
grant execute on function predictu_dispatch.retire_signing_key to predictu_operations;
