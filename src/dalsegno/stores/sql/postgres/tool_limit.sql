SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    set_config('statement_timeout', %(milliseconds)s::text, true),
    set_config('lock_timeout', %(milliseconds)s::text, true),
    set_config('idle_in_transaction_session_timeout', %(milliseconds)s::text, true)
