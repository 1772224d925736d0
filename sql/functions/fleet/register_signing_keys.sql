-- Stores the key that a daemon is about to sign with for each operator, with the public key as it is
-- published. A key that is stored already is not changed, so the call may be repeated. It waits two
-- seconds for a lock: deliveries wait for it when a daemon starts.
create or replace function predictu_dispatch.register_signing_keys(
    operator_ids text[], key_ids text[], algorithms text[], public_jwks text[]
) returns void language sql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
    insert into predictu_dispatch.signing_key (operator_id, kid, algorithm, public_jwk)
    select loaded.operator_id, loaded.key_id, loaded.algorithm, loaded.public_jwk::jsonb
      from unnest(operator_ids, key_ids, algorithms, public_jwks) as loaded (operator_id, key_id, algorithm, public_jwk)
     -- In one order, so that two daemons that start together do not deadlock.
     order by 1, 2
        on conflict do nothing;
$$;

revoke all on function predictu_dispatch.register_signing_keys from public;
grant execute on function predictu_dispatch.register_signing_keys to predictu_dispatcher;
