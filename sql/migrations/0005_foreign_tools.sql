-- compatible_from: 0001
-- A publication for all tables makes Postgres refuse UPDATE and DELETE of a table that has neither a
-- primary key nor a replica identity. These tables have no key that begins with operator_id; what
-- identifies a row is the whole row. The audit is only inserted into, but no table is an exception.
-- Everything here is instant.
do $$
declare
    name regclass;
begin
    -- The audit before its partitions, in the order in which settle() locks them.
    for name in
        select c.oid from pg_class c
         where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p') and c.relreplident <> 'f'
           and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
         order by c.relkind = 'p' desc, c.relname
    loop
        execute format('alter table %s replica identity full', name);
    end loop;
end $$;

-- It may have been created while the search_path of a session named other people's functions.
delete from predictu_dispatch.schema_function where name = 'views/needs_review.sql';
