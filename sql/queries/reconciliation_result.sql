-- A finished run. `accepted` counts its differences that are not open; `is_first` is true if no
-- earlier run covers one of its days.
-- $1 operator_id, $2 run_id, $3 the classes that are differences
select r.cut_at, r.rows_ours, r.sums, r.is_complete, r.opened, r.closed, r.given_from, r.given_until,
    (
        select count(*)
        from predictu_dispatch.reconciliation_item i
        where i.operator_id = r.operator_id and i.run_id = r.run_id and i.class = any($3::text[]) and not i.is_open
    ) as accepted,
    not exists(
        select from predictu_dispatch.reconciliation_run e
        where e.operator_id = r.operator_id and e.first_day <= r.last_day and e.last_day >= r.first_day
            and e.finished_at < r.finished_at
    ) as is_first
from predictu_dispatch.reconciliation_run r
where r.operator_id = $1 and r.run_id = $2
