-- The log. Names carry a prefix because tools of the class `transactional` keep their own tables in this database.
-- Collations are "C": an index must not depend on the operating system's version.

-- `since`: when the session last began to wait for a replica. `ready_at`: 0 = it can run now, else Unix milliseconds.
-- `epoch`, `owner` and `attempt` (of the oldest open turn) are in no event.
-- `status`: 0 idle, 1 running, 2 waiting, 3 deleted, 4 deleted and erased. `user`: UTF-8, which may hold a NUL.
-- `state`: CRC-32 and MessagePack of the folded session; derived, NULL is rebuilt from the log.
-- `shelf`: where the session's first events are, if they are archived; NULL = all are here. It is in no event.
-- A row is rewritten with every commit: there is room for its next version on its page.
CREATE TABLE dalsegno_session (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since bigint NOT NULL,
    ready_at bigint,
    epoch bigint NOT NULL,
    id uuid NOT NULL,
    head integer NOT NULL,
    attempt integer NOT NULL,
    status smallint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    owner text COLLATE "C",
    "user" bytea,
    state bytea,
    shelf bytea,
    UNIQUE (tenant, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Claims read what they take, not the backlog: the free ones by waiting time, the held ones by holder.
CREATE INDEX dalsegno_session_free ON dalsegno_session (ready_at, since) WHERE owner IS NULL AND ready_at IS NOT NULL;
CREATE INDEX dalsegno_session_held ON dalsegno_session (owner) WHERE owner IS NOT NULL;

-- Empty but for deletions that are under way or were interrupted, which are looked for again and again.
CREATE INDEX dalsegno_session_unerased ON dalsegno_session (tenant, id) WHERE status = 3;

-- `kind`: number of the event's type + 256 * (version of its data - 1) + 16384 if the body is a Zstandard frame.
-- `turn`: 0 = none. `crc`: CRC-32 of the body as it is stored.
CREATE TABLE dalsegno_event (
    session bigint NOT NULL,
    at bigint NOT NULL,
    crc integer NOT NULL,
    seq integer NOT NULL,
    turn integer NOT NULL,
    kind smallint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (session, seq)
) PARTITION BY HASH (session);

-- Bodies of the usual size stay in their row: two to a page at least. Larger ones are moved out.
ALTER TABLE dalsegno_event ALTER COLUMN body SET STORAGE EXTERNAL;
DO $$
BEGIN
    FOR number IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE dalsegno_event_%s PARTITION OF dalsegno_event FOR VALUES WITH (MODULUS 8, REMAINDER %s)'
            ' WITH (toast_tuple_target = 4080)', number, number
        );
    END LOOP;
END
$$;

CREATE TABLE dalsegno_key (
    session bigint NOT NULL,
    seq integer NOT NULL,
    turn integer NOT NULL,
    digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (session, digest)
);

-- `lock`: the advisory lock that the replica's connection holds while the process lives; NULL = behind a pooler.
CREATE TABLE dalsegno_replica (
    incarnation text COLLATE "C" PRIMARY KEY,
    id text NOT NULL,
    pid integer NOT NULL,
    url text NOT NULL,
    expires timestamptz NOT NULL,
    ttl interval NOT NULL,
    lock bigint
) WITH (fillfactor = 50);

-- What was applied. `readable_by`: the oldest version whose code may use the database from then on.
CREATE TABLE dalsegno_schema (
    phase text NOT NULL,
    version integer NOT NULL,
    readable_by integer NOT NULL,
    PRIMARY KEY (phase, version)
);
INSERT INTO dalsegno_schema (phase, version, readable_by) VALUES ('schema', 1, 1);
