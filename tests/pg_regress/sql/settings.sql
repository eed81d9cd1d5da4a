-- Settings of the session that nodes are given, and what happens when a node refuses one.
SET client_min_messages = warning;
CREATE SCHEMA settings;
SET search_path = settings;
CREATE TABLE events (id int PRIMARY KEY, at timestamptz NOT NULL, words text);
SELECT create_distributed_table('events', 'id', shard_count => 4);
INSERT INTO events SELECT i, timestamptz '2024-01-01 00:00Z' + i * interval '1 minute', 'The cats' FROM generate_series(1, 100) i;
CREATE TEXT SEARCH CONFIGURATION public.here_only (COPY = english);

-- none of them is given when one is refused: no statement may run so, whatever its way to the node
SET default_text_search_config = 'public.here_only';
SET TimeZone = 'Asia/Kathmandu';
\set SHOW_CONTEXT never
SELECT extract(hour FROM at) FROM events WHERE id = 5;
\set VERBOSITY terse
SELECT max(extract(hour FROM at)) FROM events;
SELECT id, extract(hour FROM at) FROM events;
UPDATE events SET words = extract(hour FROM at) WHERE id = 5;
INSERT INTO events VALUES (101, '2024-01-01 12:00', 'new');
BEGIN;
SELECT id, extract(hour FROM at) FROM events;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT extract(hour FROM at) FROM events WHERE id = 5;
ROLLBACK TO s;
SET LOCAL default_text_search_config = 'pg_catalog.simple';
SELECT extract(hour FROM at) FROM events WHERE id = 5;
COMMIT;
SET default_text_search_config = 'pg_catalog.simple';
SELECT id, words, at, extract(hour FROM at) FROM events WHERE id IN (5, 101) OR id > 99 ORDER BY id;

-- the node gets it
\c regression_worker_1
CREATE TEXT SEARCH CONFIGURATION public.here_only (COPY = english);
\c regression_worker_2
CREATE TEXT SEARCH CONFIGURATION public.here_only (COPY = english);
\c regression
SET client_min_messages = warning;
SET search_path = settings;
SET default_text_search_config = 'public.here_only';
SET TimeZone = 'Asia/Kathmandu';
SELECT extract(hour FROM at) FROM events WHERE id = 5;
SELECT count(*) FROM events WHERE to_tsvector(words) @@ to_tsquery('cat');
SELECT DISTINCT extract(hour FROM at) FROM events ORDER BY 1;

-- settings that came with a statement that failed, or with a transaction that was rolled back, are given again
SET TimeZone = 'UTC';
SELECT 1 / (extract(hour FROM at) - 0) FROM events WHERE id = 5;
SELECT extract(hour FROM at) FROM events WHERE id = 5;
SET TimeZone = 'Asia/Kathmandu';
BEGIN;
SELECT max(extract(hour FROM at)) FROM events;
ROLLBACK;
SELECT max(extract(hour FROM at)) FROM events;
BEGIN;
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT max(extract(hour FROM at)) FROM events;
COMMIT;
SELECT max(extract(hour FROM at)) FROM events;

-- all rows, in a transaction
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM events;
MOVE 3 FROM c;
SELECT count(*) FROM (SELECT id FROM events OFFSET 0) x;
UPDATE events SET words = words || '!' WHERE id = 7;
SELECT count(*) FROM (SELECT * FROM events OFFSET 0) x WHERE words LIKE '%!';
SAVEPOINT s;
SELECT sum(id) FROM (SELECT id FROM events OFFSET 0) x WHERE 1 / (id - 50) >= 0;
ROLLBACK TO s;
SELECT count(*) FROM (SELECT id FROM events LIMIT 3) x;
SELECT words FROM events WHERE id = 7;
MOVE ALL FROM c;
COMMIT;

DROP SCHEMA settings CASCADE;
DROP TEXT SEARCH CONFIGURATION public.here_only;
\c regression_worker_1
DROP TEXT SEARCH CONFIGURATION public.here_only;
\c regression_worker_2
DROP TEXT SEARCH CONFIGURATION public.here_only;
