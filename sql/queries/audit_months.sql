-- The bounds of started_at between which the audit is read, in order: one partition each, and what
-- lies between and beyond them, which is in the default partition. The last one has no end, because
-- infinity is a time too.
with month as (
    select make_timestamp(substr(c.relname, 9, 4)::integer, substr(c.relname, 14)::integer, 1, 0, 0, 0) as first
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'predictu_dispatch.attempt_record'::regclass and c.relname ~ '^attempt_[0-9]{4}_(0[1-9]|1[0-2])$'
), bound as (
    select first as at from month union select first + interval '1 month' from month
    union select '-infinity' union select 'infinity'
)
select at at time zone 'UTC' as first, lead(at) over (order by at) at time zone 'UTC' as until
  from bound order by at
