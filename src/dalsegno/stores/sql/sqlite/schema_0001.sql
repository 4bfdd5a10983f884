-- The log. Names carry a prefix because tools of the class `transactional` keep their own tables in this file.

-- `since`: when the session last began to wait for a replica. `ready_at`: 0 = it can run now, else Unix milliseconds.
-- `epoch`, `owner` and `attempt` (of the oldest open turn) are in no event.
-- `status`: 0 idle, 1 running, 2 waiting, 3 deleted, 4 deleted and erased.
-- `state`: CRC-32 and MessagePack of the folded session; derived, NULL is rebuilt from the log.
-- `shelf`: where the session's first events are, if they are archived; NULL = all are here. It is in no event.
CREATE TABLE dalsegno_session (
    n INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id NOT NULL,
    head INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT,
    attempt INTEGER NOT NULL,
    ready_at INTEGER,
    since INTEGER NOT NULL,
    status INTEGER NOT NULL,
    user TEXT,
    state BLOB,
    shelf BLOB,
    UNIQUE (tenant, id)
);

-- Claims read what they take, not the backlog: the free ones by waiting time, the held ones by holder.
CREATE INDEX dalsegno_session_open ON dalsegno_session (owner, ready_at, since)
WHERE owner IS NOT NULL OR ready_at IS NOT NULL;

-- Empty but for deletions that are under way or were interrupted, which are looked for again and again.
CREATE INDEX dalsegno_session_unerased ON dalsegno_session (tenant, id) WHERE status = 3;

-- One B-tree for everything: id = n << 32 | seq, so that a session's tail is one range.
-- `kind`: number of the event's type + 256 * (version of its data - 1). `crc`: CRC-32 of the body, as a signed number.
CREATE TABLE dalsegno_event (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    turn INTEGER,
    at INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE dalsegno_key (
    session INTEGER NOT NULL,
    digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    seq INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (session, digest)
) WITHOUT ROWID;

-- `expires` and `ttl` are milliseconds of CLOCK_MONOTONIC: one clock for all processes of a machine, and no jump of the
-- wall clock moves it.
CREATE TABLE dalsegno_replica (
    incarnation TEXT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    url TEXT NOT NULL,
    expires INTEGER NOT NULL,
    ttl INTEGER NOT NULL
) WITHOUT ROWID;

-- The version is a view, since a table would take a page. `readable_by`: the oldest version whose code may use the file.
CREATE VIEW dalsegno_schema AS SELECT 1 AS version, 1 AS readable_by;
