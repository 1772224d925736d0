-- Makes the next step for an old audit partition, one transaction each. First the rows that are
-- needed (needed_rows()) are copied to its successor, `blocks` blocks at a time. Then the successor
-- replaces the partition, or the partition stays because all of it is needed. Then the replaced
-- partition is read again: rows that arrived meanwhile return to the audit, and the places of the
-- others in their operator's log are noted. With the last step audit_removal gets these places, the
-- replaced partition is dropped and is_done is true. The database alone knows which step is next, so
-- no caller can skip one. Raises PD003, PD006, and 55P03 or 55000 if the partition is not available
-- now, also because it has rows that are in no log yet.
create or replace function predictu_dispatch.purge_audit(keep_months integer, part text, blocks integer)
returns table (step text, scanned bigint, needed bigint, is_done boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
set enable_seqscan = off set jit = off as $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    kept text := 'kept_' || part;
    source text;
    cursor predictu_dispatch.audit_purge_cursor;
    first_tid tid;
    end_tid tid;
begin
    perform predictu_dispatch.lock_retention(blocks);
    select a.step into step from predictu_dispatch.expired_audit(keep_months, coalesce(part, '')) a
     order by a.step limit 1;
    if not found then
        perform predictu_dispatch.refuse_params('retention',
            format('part %s is not old', coalesce(quote_literal(left(part, 80)), 'NULL')),
            'Use a part that expired_audit() returns.');
    end if;
    source := case step when 'replace' then 'attempt_' else 'retired_' end || part;
    -- No other transaction may rewrite it between the next check and the reading.
    execute format('lock table only predictu_dispatch.%I in access share mode', source);
    select w.* into cursor from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    -- The cursor of an interrupted run is not continued: rows that were written behind it meanwhile
    -- would be missing from the successor. Nor is that of a table that was rewritten, by VACUUM FULL
    -- for example: its rows have moved.
    if cursor.source is distinct from pg_relation_filenode(to_regclass('predictu_dispatch.' || source))
       or cursor.moved_at < now() - interval '1 hour' or cursor.moved_at > now()
       or (step = 'replace' and to_regclass('predictu_dispatch.' || kept) is null) then
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
        delete from predictu_dispatch.audit_removal_draft d where d.part = purge_audit.part;
        insert into predictu_dispatch.audit_purge_cursor (part, source, next_block)
        values (part, pg_relation_filenode(to_regclass('predictu_dispatch.' || source)), 0) returning * into cursor;
        if step = 'replace' then
            perform predictu_dispatch.create_kept_partition(part);
        end if;
    end if;
    is_done := false;
    if cursor.next_block is not null then
        first_tid := format('(%s,0)', cursor.next_block)::tid;
        end_tid := format('(%s,0)', cursor.next_block + blocks)::tid;
        execute format('select count(*), count(*) filter (where %s) from predictu_dispatch.%I s '
                       'where s.ctid >= $1 and s.ctid < $2', predictu_dispatch.needed_rows(), source)
           into scanned, needed using first_tid, end_tid, cutoff;
        if step = 'drop' then
            needed := greatest(needed, predictu_dispatch.sort_out_rows(part, first_tid, end_tid, cutoff));
        else
            perform predictu_dispatch.refuse_unsealed(part, first_tid, end_tid, cutoff);
            execute format($statement$
                insert into predictu_dispatch.%1$I
                select s.* from predictu_dispatch.%2$I s
                 where s.ctid >= $1 and s.ctid < $2 and %3$s
                   -- A repeated report may be in the audit as late; the row that decided is another
                   -- one.
                   and not exists (
                       select from predictu_dispatch.%1$I t
                        where t.operator_id = s.operator_id and t.request_id = s.request_id and t.attempt = s.attempt
                          and t.started_at = s.started_at and t.report_id = s.report_id
                          and (t.verdict = 'late') = (s.verdict = 'late'))
                $statement$, kept, source, predictu_dispatch.needed_rows())
              using first_tid, end_tid, cutoff;
        end if;
        update predictu_dispatch.audit_purge_cursor w
           set scanned = cursor.scanned + purge_audit.scanned, needed = cursor.needed + purge_audit.needed,
               moved_at = now(),
               next_block = case when (cursor.next_block + blocks) * current_setting('block_size')::bigint
                                      < pg_relation_size(format('predictu_dispatch.%I', source))
                                 then cursor.next_block + blocks end
         where w.part = purge_audit.part returning * into cursor;
    else
        if step = 'drop' then
            perform predictu_dispatch.write_removals(part, cutoff);
            execute format('drop table predictu_dispatch.%I', source);
            is_done := true;
        elsif cursor.needed = cursor.scanned and cursor.scanned > 0 then
            execute format('drop table predictu_dispatch.%I', kept);
            is_done := true;
        else
            perform predictu_dispatch.swap_audit_partition(part, cursor.needed > 0);
        end if;
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    end if;
    scanned := cursor.scanned;
    needed := cursor.needed;
    return next;
end $$;

revoke all on function predictu_dispatch.purge_audit from public;
grant execute on function predictu_dispatch.purge_audit to predictu_retention;
