-- All currencies, by code.
select currency, minor_digits, is_iso_4217, added_at, added_by from predictu_dispatch.currency order by currency
