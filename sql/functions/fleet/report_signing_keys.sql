-- Records the key that a daemon signs with for each operator, after it loaded them, and since when it
-- does. So `keys retire` knows until when a token of another key may be valid. Returns false if the
-- session has no row.
create or replace function predictu_dispatch.report_signing_keys(
    instance text, session_id uuid, operator_ids text[], key_ids text[]
) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
#variable_conflict use_column
begin
    -- heartbeat() writes the same rows.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    update predictu_dispatch.daemon d
       set signing_keys = (
           select coalesce(jsonb_object_agg(loaded.operator_id, jsonb_build_object(
                      'key_id', loaded.key_id,
                      'since', case d.signing_keys #>> array[loaded.operator_id, 'key_id'] when loaded.key_id
                               then d.signing_keys #> array[loaded.operator_id, 'since']
                               else to_jsonb(clock_timestamp()) end)), '{}')
             from unnest(operator_ids, key_ids) as loaded (operator_id, key_id))
     where d.instance = report_signing_keys.instance and d.session_id = report_signing_keys.session_id;
    return found;
end $$;

revoke all on function predictu_dispatch.report_signing_keys from public;
grant execute on function predictu_dispatch.report_signing_keys to predictu_dispatcher;
