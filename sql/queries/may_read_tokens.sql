-- Whether this login may call token_of().
select has_function_privilege('predictu_dispatch.token_of(text, uuid, integer, uuid)', 'execute') as may_read
