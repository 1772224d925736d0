-- What people did, the newest first. The index on done_at is read backwards until the page is full;
-- those of one callback are read by intervention_of_callback. A page ends between two times, so that
-- the next one can begin at a time.
-- $1 operator_id; $2 action; $3 done_by or database_role; $4 since; $5 until, exclusive; $6 and $7
-- first and last request_id; $8 bet_id; each null for any; $9 page size
select i.done_at, i.action, i.operator_id, i.request_id,
       (select c.method from predictu_dispatch.callback c
         where c.operator_id = i.operator_id and c.request_id = i.request_id) as method,
       i.bet_id, i.reason, i.done_by, i.database_role, i.client_addr, i.before::text as before, i.after::text as after
  from predictu_dispatch.intervention i
 where ($1::text is null or i.operator_id = $1)
   and ($2::text is null or i.action = $2)
   and ($3::text is null or i.done_by = $3 or split_part(i.done_by, '@', 1) = $3 or i.database_role = $3)
   and ($4::timestamptz is null or i.done_at >= $4)
   and ($5::timestamptz is null or i.done_at < $5)
   and ($6::uuid is null
        or (i.request_id between $6 and $7
            and i.operator_id = any (array(select o.operator_id from predictu_dispatch.operator o))))
   and ($8::text is null or i.bet_id = $8)
 order by i.done_at desc
 fetch first ($9) rows with ties
