-- What decides whether a statement can be made: one row. Read in its snapshot.
-- $1 operator_id; $2 currency
select exists (select from predictu_dispatch.operator o where o.operator_id = $1) as is_known,
       (select c.minor_digits from predictu_dispatch.currency c where c.currency = $2) as minor_digits,
       (select max(h.removed_before) from predictu_dispatch.removed_history h) as cutoff,
       now() as read_at
