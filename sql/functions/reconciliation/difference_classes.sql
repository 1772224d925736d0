-- Returns the classes that are open until a later run or two people close them: those of the kinds
-- difference and contradiction in core/difference_classes.py.
create or replace function predictu_dispatch.difference_classes() returns text[]
language sql immutable parallel safe
return array['ours', 'booked_twice', 'currency_differs', 'player_differs', 'amount_differs', 'booked_though_rejected',
             'booked_though_never_sent', 'debit_standing', 'rolled_back_but_credited', 'two_ends', 'missing_there',
             'missing_here'];

revoke all on function predictu_dispatch.difference_classes from public;
