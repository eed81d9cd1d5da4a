-- Nodes of other major versions: what they lack is computed here. The catalog is told that a node lacks something.
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 9100000;
SELECT node_id AS id, version_num AS version FROM shard_ext.node WHERE server_name = 'worker_1' \gset
SELECT bool_and(lacking_functions = '{}' AND lacking_collations = '{}') AS same FROM shard_ext.node;
CREATE TABLE measured (k int, n numeric, t text COLLATE "POSIX", u text COLLATE ucs_basic);
SELECT create_distributed_table('measured', 'k', shard_count => 2);
INSERT INTO measured SELECT k, k / 8.0, 'row ' || k, 'u' || k FROM generate_series(1, 20) k;
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE n ^ 2 > 5 AND t = 'row 20';
UPDATE shard_ext.node SET lacking_functions = ARRAY['numeric_power'::regproc, 'regexp_like(text,text)'::regprocedure]::oid[] WHERE node_id = :id;
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE n ^ 2 > 5 AND t = 'row 20';
SELECT k FROM measured WHERE n ^ 2 > 5 ORDER BY 1;
SELECT count(*) FROM measured WHERE regexp_like(t, '1.*');
-- such functions cannot be part of what nodes evaluate themselves
CREATE TABLE checked (k int, t text CHECK (regexp_like(t, '^[a-z]')));
SELECT create_distributed_table('checked', 'k');
CREATE TABLE generated (k int, n numeric, square numeric GENERATED ALWAYS AS (n ^ 2) STORED);
SELECT create_distributed_table('generated', 'k');
DROP TABLE checked, generated;
-- collations that sort otherwise there
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE u > 'u1' ORDER BY u LIMIT 1;
UPDATE shard_ext.node SET lacking_collations = ARRAY['ucs_basic'::regcollation]::oid[] WHERE node_id = :id;
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE u > 'u1' ORDER BY u LIMIT 1;
SELECT k FROM measured WHERE u > 'u1' ORDER BY u LIMIT 3;
-- check_node finds out again
SELECT bool_and(passed) FROM shard_ext.check_node('worker_1');
SELECT lacking_functions, lacking_collations FROM shard_ext.node WHERE node_id = :id;
-- a node that has been upgraded
UPDATE shard_ext.node SET version_num = 140001 WHERE node_id = :id;
\c
SELECT count(*) FROM measured;
SELECT bool_and(passed) FROM shard_ext.check_node('worker_1');
SELECT count(*) FROM measured;
SELECT version_num = :version AS known FROM shard_ext.node WHERE node_id = :id;
-- numerics that PostgreSQL 14 does not know, while a node may be one
UPDATE shard_ext.node SET version_num = 140001 WHERE node_id = :id;
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE n::numeric(2, -1) = 0;
SELECT bool_and(passed) FROM shard_ext.check_node('worker_1');
EXPLAIN (COSTS OFF, VERBOSE) SELECT k FROM measured WHERE n::numeric(2, -1) = 0;
-- a newer version may have more keywords
UPDATE shard_ext.node SET version_num = 170001 WHERE node_id = :id;
EXPLAIN (COSTS OFF, VERBOSE) SELECT k, "system_user" FROM (SELECT k, t AS "system_user" FROM measured) measured WHERE k = 3;
UPDATE shard_ext.node SET version_num = :version WHERE node_id = :id;
DROP TABLE measured;
