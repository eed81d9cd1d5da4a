-- Statements that come again with other constants: their plans are kept, and go when something changes.
CREATE SCHEMA repeated;
SET search_path = repeated;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 7000000;
CREATE TABLE things (tenant int, id int, kind text, PRIMARY KEY (tenant, id));
SELECT create_distributed_table('things', 'tenant', shard_count => 4);
INSERT INTO things SELECT i % 10, i, 'kind ' || i % 3 FROM generate_series(1, 100) i;
CREATE VIEW kept AS SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'shard_ext statement';

SELECT id FROM things WHERE tenant = 1 AND kind = 'kind 1' ORDER BY id;
SELECT * FROM kept;
SELECT id FROM things WHERE tenant = 2 AND kind = 'kind 2' ORDER BY id;
SELECT id FROM things WHERE tenant = 3 AND kind = 'kind 0' ORDER BY id;
SELECT * FROM kept;
UPDATE things SET kind = 'other' WHERE tenant = 1 AND id = 1;
UPDATE things SET kind = 'more' WHERE tenant = 2 AND id = 2;
UPDATE things SET kind = 'most' WHERE tenant = 3 AND id = 3 RETURNING *;
UPDATE things SET kind = 'all' WHERE tenant = 4 AND id = 4 RETURNING *;
INSERT INTO things VALUES (1, 1001, 'new');
INSERT INTO things VALUES (2, 1002, 'newer');
INSERT INTO things VALUES (2, 1002, 'newest');
DELETE FROM things WHERE tenant = 1 AND id = 1001;
DELETE FROM things WHERE tenant = 2 AND id = 1002;
SELECT * FROM kept;
-- what is not routed is planned each time
SELECT count(*) FROM things WHERE kind = 'kind 1';
SELECT count(*) FROM things WHERE kind = 'kind 2';
SELECT count(*) FROM things WHERE kind = 'other';
EXPLAIN (COSTS OFF) SELECT id FROM things WHERE tenant = 5 AND kind = 'kind 1' ORDER BY id;

-- the same statement, when the table is another
SELECT undistribute_table('things');
SELECT id FROM things WHERE tenant = 3 AND kind = 'kind 0' ORDER BY id LIMIT 2;
ALTER TABLE things DROP CONSTRAINT things_pkey;
SELECT create_distributed_table('things', 'id', shard_count => 4);
SELECT id FROM things WHERE tenant = 3 AND kind = 'kind 0' ORDER BY id LIMIT 2;
SELECT id FROM things WHERE tenant = 4 AND kind = 'kind 1' ORDER BY id LIMIT 3;
SELECT tenant FROM things WHERE id = 34;
SELECT tenant FROM things WHERE id = 35;
SELECT tenant FROM things WHERE id = 36;
BEGIN;
DROP TABLE things;
CREATE TABLE things (tenant int, id int, kind text);
SELECT tenant FROM things WHERE id = 36;
ROLLBACK;
SELECT tenant FROM things WHERE id = 37;

SET client_min_messages = warning;
DROP SCHEMA repeated CASCADE;
