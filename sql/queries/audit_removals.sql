-- What retention recorded as removed.
-- $1 operator_id, or null for all
select operator_id, removal_id, part, cutoff, attempts, leaf_indices_sha256, removed_at,
       array(select array[lower(r), upper(r)] from unnest(leaf_indices) r) as leaf_ranges
  from predictu_dispatch.audit_removal
 where $1::text is null or operator_id = $1
 order by removed_at, removal_id
