-- The database's clock, as Unix time.
select extract(epoch from clock_timestamp())::double precision as database_at_s
