-- Returns half of the SHA-256 of params, by which a tombstone recognises a repeated request.
create or replace function predictu_dispatch.params_digest(params jsonb) returns bytea language sql immutable parallel safe
return substring(sha256(convert_to(params::text, 'UTF8')) for 16);

revoke all on function predictu_dispatch.params_digest from public;
