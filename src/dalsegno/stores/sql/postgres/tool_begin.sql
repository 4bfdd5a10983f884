-- The tool's own statements are planned as usual; neither it nor a stopped replica keeps its locks beyond its time.
BEGIN;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on
