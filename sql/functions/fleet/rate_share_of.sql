-- Divides a rate as share_of() does, in whole requests a second. The first daemon gets the fraction
-- as well, so that the shares add up exactly.
create or replace function predictu_dispatch.rate_share_of(most double precision, daemons bigint, place bigint)
returns double precision language sql immutable parallel safe as $$
    select case place when 0 then most - (floor(most) - predictu_dispatch.share_of(floor(most)::integer, daemons, 0))
                      else predictu_dispatch.share_of(floor(most)::integer, daemons, place) end
$$;

revoke all on function predictu_dispatch.rate_share_of from public;
