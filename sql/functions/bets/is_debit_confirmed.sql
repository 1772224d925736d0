-- Returns true if the operator has confirmed the debit or the bet was adopted. Such a debit stands,
-- whatever the operator answers later.
create or replace function predictu_dispatch.is_debit_confirmed(operator_id text, placement_request_id uuid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select placement.effect = 'applied' from predictu_dispatch.callback placement
                      where placement.operator_id = is_debit_confirmed.operator_id
                        and placement.request_id = is_debit_confirmed.placement_request_id), true)
$$;

revoke all on function predictu_dispatch.is_debit_confirmed from public;
