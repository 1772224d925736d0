-- Refuses every change of the logs that is no growth, for every role including the owner: hashes are
-- appended to a tile, a head's size rises, and nothing else is changed or deleted.
create or replace function predictu_dispatch.refuse_log_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'UPDATE' and tg_table_name = 'audit_tile' then
        if (new.operator_id, new.level, new.tile) = (old.operator_id, old.level, old.tile)
           and substr(new.hashes, 1, octet_length(old.hashes)) = old.hashes
           and substr(new.report_ids, 1, octet_length(old.report_ids)) is not distinct from old.report_ids
           and coalesce(new.started_from <= old.started_from, old.started_from is null)
           and coalesce(new.started_until >= old.started_until, old.started_until is null) then
            return new;
        end if;
    elsif tg_op = 'UPDATE' and tg_table_name = 'audit_head' then
        -- A new signature under the same tree is allowed.
        if new.operator_id = old.operator_id and (new.size > old.size or new.size = old.size and new.root = old.root) then
            return new;
        end if;
    end if;
    raise exception using errcode = 'PD900',
        message = format('the log only grows: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Entries are appended by the daemon, and never changed, moved or removed.';
end $$;

revoke all on function predictu_dispatch.refuse_log_change from public;

do $$
declare
    relation text;
begin
    foreach relation in array array['audit_log', 'audit_head', 'audit_tile', 'audit_checkpoint', 'audit_cosignature',
                                    'audit_removal', 'audit_verification'] loop
        continue when exists (select from pg_trigger where tgrelid = ('predictu_dispatch.' || relation)::regclass
                                 and tgname = relation || '_only_grows');
        execute format('create trigger %I before update or delete on predictu_dispatch.%I for each row '
                       'execute function predictu_dispatch.refuse_log_change()', relation || '_only_grows', relation);
        execute format('alter table predictu_dispatch.%I enable always trigger %I', relation, relation || '_only_grows');
        execute format('create trigger %I before truncate on predictu_dispatch.%I for each statement '
                       'execute function predictu_dispatch.refuse_log_change()', relation || '_not_truncated', relation);
        execute format('alter table predictu_dispatch.%I enable always trigger %I', relation, relation || '_not_truncated');
    end loop;
end $$;
