-- The hot tier: open steps. Everything here may be lost at any moment.

-- `epoch`: the newest one seen, the fence. `author`: the one that the pieces were published under. `until`: the units
-- that the pieces reach without a gap. `expires` and `ttl` are milliseconds of CLOCK_MONOTONIC.
CREATE TABLE dalsegno_step (
    n INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    author INTEGER NOT NULL,
    base INTEGER NOT NULL,
    until INTEGER NOT NULL,
    size INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    ttl INTEGER NOT NULL,
    UNIQUE (tenant, id)
);

CREATE INDEX dalsegno_step_expires ON dalsegno_step (expires);

-- One row for what was published at once: MessagePack of contiguous pieces.
CREATE TABLE dalsegno_piece (
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (step, at)
) WITHOUT ROWID;

-- The version is a view, since a table would take a page. `readable_by`: the oldest version whose code may use the file.
CREATE VIEW dalsegno_schema AS SELECT 1 AS version, 1 AS readable_by;
