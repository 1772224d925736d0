-- The removals that retention recorded. `too_young`: a tile of level 0 with a removed entry in which
-- every attempt began after the cutoff; null if there is none.
-- $1 operator_id, or null for all
select r.operator_id, r.removal_id, r.part, r.cutoff, r.attempts, r.leaf_indices_sha256, r.removed_at,
       array(select array[lower(i), upper(i)] from unnest(r.leaf_indices) i) as leaf_ranges,
       (select min(t.tile)
          from unnest(r.leaf_indices) i
          join predictu_dispatch.audit_tile t
            on t.operator_id = r.operator_id and t.level = 0 and t.tile between lower(i) >> 8 and (upper(i) - 1) >> 8
         where (t.started_from < r.cutoff) is not true) as too_young
  from predictu_dispatch.audit_removal r
 where $1::text is null or r.operator_id = $1
 order by r.removed_at, r.removal_id
