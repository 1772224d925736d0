-- Returns what a class means: agreed, counted, difference or contradiction; see
-- predictu_dispatch/core/difference_classes.py.
create or replace function predictu_dispatch.difference_kind(class text) returns text
language sql immutable parallel safe
return case
    when class in ('agreed', 'agreed_resolves_unknown') then 'agreed'
    when class in ('unreadable', 'out_of_window', 'in_flight', 'no_end', 'day_differs') then 'counted'
    when class = 'ours' then 'contradiction'
    else 'difference'
end;

revoke all on function predictu_dispatch.difference_kind from public;
grant execute on function predictu_dispatch.difference_kind
    to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
