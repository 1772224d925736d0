-- Decides which rows of a detached audit partition are removed, in some of its blocks. Rows that are
-- needed or not sealed yet are inserted into the audit again. The log indices of all others are
-- collected in audit_removal_draft. Returns how many rows were inserted again.
create or replace function predictu_dispatch.sort_out_rows(
    part text, first_tid tid, end_tid tid, cutoff timestamptz) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    source text := 'retired_' || part;
    as_stored tid[];
    unsealed tid[];
    operator_ids text[];
    leaf_indices bigint[];
    columns text;
begin
    for trial in 1 .. 2 loop
        select array_agg(m.row_tid) filter (where m.is_needed and (m.leaf_index is not null or not m.has_log)),
               array_agg(m.row_tid) filter (where m.leaf_index is null and m.has_log),
               array_agg(m.operator_id) filter (where m.leaf_index is not null and not m.is_needed),
               array_agg(m.leaf_index) filter (where m.leaf_index is not null and not m.is_needed)
          into as_stored, unsealed, operator_ids, leaf_indices
          from predictu_dispatch.missing_rows(part, first_tid, end_tid, cutoff) m;
        exit when unsealed is null;
        -- A sealer may be about to seal these rows, which it read before the partition was detached.
        -- Once this lock is granted, it has either finished or must start again.
        update predictu_dispatch.audit_position p set revision = p.revision + 1;
    end loop;
    insert into predictu_dispatch.audit_removal_draft as d (operator_id, part, piece, leaf_indices)
    select gone.operator_id, part, gone.leaf_index / 4096, range_agg(int8range(gone.leaf_index, gone.leaf_index + 1))
      from unnest(operator_ids, leaf_indices) as gone (operator_id, leaf_index)
     group by gone.operator_id, gone.leaf_index / 4096
        on conflict on constraint audit_removal_draft_pkey
        do update set leaf_indices = d.leaf_indices + excluded.leaf_indices;
    if as_stored is not null then
        execute format('insert into predictu_dispatch.attempt_record select s.* from predictu_dispatch.%I s '
                       'where s.ctid = any ($1)', source) using as_stored;
    end if;
    if unsealed is not null then
        -- With the id of this transaction, because sealers read new transactions only.
        select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into columns
          from pg_attribute a
         where a.attrelid = 'predictu_dispatch.attempt_record'::regclass and a.attnum > 0 and not a.attisdropped
           and a.attname <> 'written_in';
        execute format('insert into predictu_dispatch.attempt_record (%1$s) select %1$s from predictu_dispatch.%2$I s '
                       'where s.ctid = any ($1)', columns, source) using unsealed;
    end if;
    return coalesce(cardinality(as_stored), 0) + coalesce(cardinality(unsealed), 0);
end $$;

revoke all on function predictu_dispatch.sort_out_rows from public;
