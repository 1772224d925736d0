-- Raises 55000 if an audit partition has, in some of its blocks, a row that would be removed and is
-- not sealed yet: its content could not be proved afterwards.
create or replace function predictu_dispatch.refuse_unsealed(part text, first_tid tid, end_tid tid, cutoff timestamptz)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    position predictu_dispatch.audit_position;
    is_behind boolean;
    is_unsealed boolean;
begin
    select p.* into position from predictu_dispatch.audit_position p;
    if not found then
        return; -- There is no log.
    end if;
    -- The rows from before the logs, or before a restore, are not sealed yet.
    is_behind := position.backlog_until is not null
        or position.system_identifier <> (select c.system_identifier from pg_control_system() c);
    execute format($statement$
        select exists (
            select from predictu_dispatch.%I s
             where s.ctid >= $1 and s.ctid < $2 and not %s
               and exists (select from predictu_dispatch.audit_log l where l.operator_id = s.operator_id)
               and ($4 or case when s.written_in > $5
                               then not pg_visible_in_snapshot((s.written_in - $5)::text::xid8, $6) end))
        $statement$, 'attempt_' || part, predictu_dispatch.needed_rows())
       into is_unsealed
      using first_tid, end_tid, cutoff, is_behind, position.xid_offset, position.sealed_until;
    if is_unsealed then
        raise exception using errcode = '55000',
            message = format('part %s stays: it has rows that are not sealed in the audit log yet', part),
            hint = 'A daemon with [audit] origin seals them; see predictu_dispatch_audit_* in deploy/metrics.md.';
    end if;
end $$;

revoke all on function predictu_dispatch.refuse_unsealed from public;
