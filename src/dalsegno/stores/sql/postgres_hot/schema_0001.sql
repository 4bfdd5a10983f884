-- The hot tier: open steps. Everything here may be lost at any moment, and is lost when the server crashes.

-- `epoch`: the newest one seen, the fence. `author`: the one that the pieces were published under. `until`: the units
-- that the pieces reach without a gap. `run`: raised when the pieces are forgotten. `size`: bytes of the pieces.
-- A row is rewritten with every publication: there is room for its next version on its page.
CREATE UNLOGGED TABLE dalsegno_step (
    n bigint NOT NULL,
    epoch bigint NOT NULL,
    author bigint NOT NULL,
    base bigint NOT NULL,
    until bigint NOT NULL,
    size bigint NOT NULL,
    run bigint NOT NULL,
    expires timestamptz NOT NULL,
    ttl interval NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX dalsegno_step_expires ON dalsegno_step (expires);

CREATE UNLOGGED SEQUENCE dalsegno_step_n;

-- One row for what was published at once: MessagePack of contiguous pieces.
CREATE UNLOGGED TABLE dalsegno_piece (
    step bigint NOT NULL,
    run bigint NOT NULL,
    at bigint NOT NULL,
    until bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (step, run, at)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE dalsegno_piece ALTER COLUMN body SET STORAGE EXTERNAL;

-- What was applied; this is not lost, since the tables are not. `readable_by`: the oldest version whose code may use them.
CREATE TABLE dalsegno_hot_schema (
    phase text NOT NULL,
    version integer NOT NULL,
    readable_by integer NOT NULL,
    PRIMARY KEY (phase, version)
);
INSERT INTO dalsegno_hot_schema (phase, version, readable_by) VALUES ('schema', 1, 1);
