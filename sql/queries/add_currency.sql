-- Adds a currency; is_new is false if it was there with the same digits.
-- $1 currency; $2 minor_digits
select predictu_dispatch.add_currency($1, $2) as is_new
