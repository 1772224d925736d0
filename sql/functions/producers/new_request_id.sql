-- Returns a new request_id: a UUID of version 7 (RFC 9562), which begins with the time. Rows of
-- about the same time then share index pages, so that fewer pages are written.
create or replace function predictu_dispatch.new_request_id() returns uuid language sql volatile parallel safe
return (
    -- Bits 52 and 53 turn version 4 into version 7.
    encode(set_bit(set_bit(
        overlay(uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1), 53, 1), 'hex')::uuid
);

revoke all on function predictu_dispatch.new_request_id from public;
