-- The months that retention has detached and not dropped yet: their rows are not in the audit, and
-- their removal is not recorded.
select substr(c.relname, 9) as part from pg_class c
 where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind = 'r' and starts_with(c.relname, 'retired_')
 order by 1
