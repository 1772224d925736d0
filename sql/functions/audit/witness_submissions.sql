-- Returns the newest stored checkpoint of each log that a witness has not cosigned yet, those that
-- have waited longest first.
create or replace function predictu_dispatch.witness_submissions(witness text)
returns table (operator_id text, size bigint, checkpoint text, cosigned_size bigint, failures integer,
               failed_s_ago double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select l.operator_id, newest.size, newest.checkpoint, coalesce(w.size, 0), coalesce(w.failures, 0),
           extract(epoch from clock_timestamp() - w.failed_at)::double precision
      from predictu_dispatch.audit_log l
     cross join lateral predictu_dispatch.witness_newest(l.operator_id) newest
      left join predictu_dispatch.audit_witness w
        on w.operator_id = l.operator_id and w.witness = witness_submissions.witness
     where newest.size > coalesce(w.size, 0)
     order by w.cosigned_at nulls first, l.operator_id
$$;

revoke all on function predictu_dispatch.witness_submissions from public;
grant execute on function predictu_dispatch.witness_submissions to predictu_dispatcher;
