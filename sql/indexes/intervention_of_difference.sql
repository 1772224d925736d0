-- What people said about a difference, in its order. Only `explain` and `accept` insert an entry.
create index concurrently if not exists intervention_of_difference
    on predictu_dispatch.intervention (operator_id, (before ->> 'item_id'), done_at)
    where action in ('explain', 'accept');
