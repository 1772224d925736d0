-- What keeps the audit append-only, as it is now: triggers, rules, and functions with a text body;
-- and what could show each reader other rows: row security, and relations that are no tables.
select 'trigger' as kind, c.relname as relation, t.tgname as name, t.tgenabled::text as state, p.proname::text as body
  from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid
 where c.relnamespace = 'predictu_dispatch'::regnamespace and not t.tgisinternal
   and (starts_with(c.relname, 'attempt_') or starts_with(c.relname, 'audit_') or c.relname in ('intervention', 'signing_key'))
union all
select 'rule', c.relname, r.rulename, r.ev_enabled::text, null
  from pg_rewrite r join pg_class c on c.oid = r.ev_class
 where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p')
union all
select 'partition', c.relname, null, null, null
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
 where i.inhparent = 'predictu_dispatch.attempt_record'::regclass
union all
select 'function', null, p.proname, null, p.prosrc
  from pg_proc p where p.pronamespace = 'predictu_dispatch'::regnamespace and p.prosqlbody is null
union all
select 'view', 'attempt', null, null, pg_get_viewdef('predictu_dispatch.attempt'::regclass)
union all
select case when c.relrowsecurity then 'policy' else 'relation' end, c.relname, null, null, null
  from pg_class c
 where (c.relnamespace = 'predictu_dispatch'::regnamespace
        and (c.relname ~ '^(attempt|audit)_' or c.relname in ('intervention', 'signing_key', 'operator'))
        or c.oid in (select i.inhrelid from pg_inherits i join pg_class p on p.oid = i.inhparent
                      where p.relnamespace = 'predictu_dispatch'::regnamespace))
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
   and (c.relrowsecurity or c.relkind <> case c.relname when 'attempt_record' then 'p' else 'r' end)
