-- Records what the next DROP TABLE removes, one row for each operator with a log: the indices of the
-- entries whose rows are removed.
create or replace function predictu_dispatch.write_removals(part text, cutoff timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
begin
    insert into predictu_dispatch.audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)
    select whole.operator_id, part, cutoff, written.attempts, whole.leaf_indices,
           sha256(convert_to(written.text, 'UTF8'))
      from (select d.operator_id, range_agg(d.leaf_indices) as leaf_indices
              from predictu_dispatch.audit_removal_draft d where d.part = write_removals.part group by d.operator_id) whole
     cross join lateral (
            select sum(upper(r) - lower(r))::bigint as attempts,
                   string_agg(lower(r) || '-' || upper(r) - 1, ',' order by lower(r)) as text
              from unnest(whole.leaf_indices) as r) written;
    delete from predictu_dispatch.audit_removal_draft d where d.part = write_removals.part;
end $$;

revoke all on function predictu_dispatch.write_removals from public;
