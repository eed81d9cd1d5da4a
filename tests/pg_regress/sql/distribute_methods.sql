-- Hash, range and list; colocation; rollback.
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 1010001;
CREATE SCHEMA methods;
SET search_path = methods;

-- hash: the same type and number of shards are colocated, in one transaction or not
CREATE TABLE h1 (k int, v text);
CREATE TABLE h2 (k int, v text);
CREATE DOMAIN key_domain AS int;
CREATE TABLE h3 (k key_domain, v text);
CREATE TABLE h4 (k bigint, v text);
CREATE TABLE h5 (k int, v text);
INSERT INTO h1 SELECT i, i FROM generate_series(1, 100) i;
INSERT INTO h1 VALUES (NULL, 'no key');
BEGIN;
SELECT create_distributed_table('h1', 'k', shard_count => 4);
SELECT create_distributed_table('h2', 'k', shard_count => 4);
SELECT count(*), count(k) FROM h1;
COMMIT;
SELECT create_distributed_table('h3', 'k', shard_count => 4);
SELECT create_distributed_table('h4', 'k', shard_count => 4);
SELECT create_distributed_table('h5', 'k', colocate_with => 'none', shard_count => 4);
SELECT relid, key_column, dense_rank() OVER (ORDER BY colocation_id) AS "group" FROM shard_ext.distributed_table
    WHERE relid::text LIKE 'h_' ORDER BY 1;
SELECT ordinal, hash_lower, hash_upper FROM shard_ext.shard_group g JOIN shard_ext.distributed_table t USING (colocation_id)
    WHERE relid = 'h1'::regclass ORDER BY 1;
SELECT n.server_name, count(*) FROM shard_ext.placement p JOIN shard_ext.node n USING (node_id)
    JOIN shard_ext.shard_group g USING (shard_group_id) JOIN shard_ext.distributed_table t USING (colocation_id)
    WHERE relid = 'h1'::regclass GROUP BY 1 ORDER BY 1;
SELECT count(*), count(k), min(k), max(k) FROM h1;
SELECT * FROM h1 WHERE k IS NULL;

-- a rollback leaves nothing on the nodes
BEGIN;
CREATE TABLE r (k int);
SELECT create_distributed_table('r', 'k', shard_count => 2);
SAVEPOINT s;
SELECT undistribute_table('r');
SELECT create_reference_table('r');
ROLLBACK TO s;
SELECT kind FROM shard_ext.distributed_table WHERE relid = 'r'::regclass;
ROLLBACK;
\c regression_worker_1
SELECT count(*) FROM pg_class WHERE relname = 'r' AND relkind = 'r';
\c regression
SET search_path = methods;
DO $$
BEGIN
    PERFORM create_distributed_table('h_unknown', 'k');
EXCEPTION WHEN undefined_table THEN
    RAISE NOTICE 'not there';
END $$;

-- range: shards appear in all tables of the group
CREATE TABLE r1 (k date, v int);
CREATE TABLE r2 (k date, v int);
SELECT create_distributed_table('r1', 'k', 'range');
INSERT INTO r1 VALUES ('2024-05-05', 1);
SELECT create_distributed_table('r2', 'k', 'range');
SELECT shard_ext.add_range_shard('r1', NULL, '2024-01-01', 'worker_1') IS NOT NULL AS added;
SELECT shard_ext.add_range_shard('r1', '2024-01-01', '2025-01-01') IS NOT NULL AS added;
SELECT shard_ext.add_range_shard('r2', '2024-01-01', '2025-01-01') IS NOT NULL AS added;
SELECT shard_ext.add_range_shard('r2', '2024-06-01', '2025-06-01');
SELECT shard_ext.add_range_shard('r2', '2025-06-01', '2025-06-01');
SELECT shard_ext.add_range_shard('r2', 'no date', NULL);
SELECT shard_ext.add_range_shard('r2', '2025-01-01', NULL, 'nowhere');
SELECT shard_ext.add_list_shard('r2', '{2026-01-01}');
SELECT lower, upper, is_default FROM shard_ext.shard_group g JOIN shard_ext.distributed_table t USING (colocation_id)
    WHERE relid = 'r2'::regclass ORDER BY ordinal;
INSERT INTO r2 VALUES ('2024-05-05', 2), ('2023-05-05', 3);
INSERT INTO r2 VALUES ('2025-05-05', 2);
INSERT INTO r2 VALUES (NULL, 2);
-- the default shard keeps what comes later, and hands it over
SELECT shard_ext.add_default_shard('r1') IS NOT NULL AS added;
SELECT shard_ext.add_default_shard('r2') IS NOT NULL AS added;
INSERT INTO r2 VALUES ('2025-05-05', 4), ('2026-05-05', 5), (NULL, 6);
SET datestyle = 'German';
SELECT shard_ext.add_range_shard('r2', '01.01.2025', '01.01.2026') IS NOT NULL AS added;
RESET datestyle;
SELECT lower, upper, is_default FROM shard_ext.shard_group g JOIN shard_ext.distributed_table t USING (colocation_id)
    WHERE relid = 'r2'::regclass ORDER BY ordinal;
SELECT * FROM r2 ORDER BY v;
SELECT * FROM r2 WHERE k = '2025-05-05';
SELECT shard_ext.add_range_shard('h1', '1', '2');

-- a table with rows and no shards yet starts with a default shard
CREATE TABLE r3 (k text COLLATE "C" PRIMARY KEY);
CREATE TABLE r4 (k text COLLATE "C" REFERENCES r3, n int GENERATED ALWAYS AS IDENTITY);
INSERT INTO r3 SELECT chr(96 + i) FROM generate_series(1, 26) i;
INSERT INTO r4 (k) SELECT k FROM r3, generate_series(1, 2);
SELECT create_distributed_table('r3', 'k', 'range');
SELECT create_distributed_table('r4', 'k', colocate_with => 'r3');
SELECT shard_ext.add_range_shard('r3', 'f', 'm', 'worker_2') AS f_to_m \gset
SELECT shard_ext.add_range_shard('r3', 'm', 'p', 'worker_1') AS m_to_p \gset
SELECT count(*), sum(n) FROM r3 JOIN r4 USING (k);
SELECT format('methods_%s', :f_to_m) AS f_to_m, format('methods_%s', :m_to_p) AS m_to_p \gset
\c regression_worker_2
SELECT min(k), max(k), count(*) FROM :f_to_m.r4;
\c regression_worker_1
SELECT min(k), max(k), count(*) FROM :m_to_p.r4;
\c regression
SET search_path = methods;

-- list
CREATE TABLE l1 (k text, v int);
SELECT create_distributed_table('l1', 'k', 'list');
SELECT shard_ext.add_list_shard('l1', '{de,at,NULL,at}') IS NOT NULL AS added;
SELECT shard_ext.add_list_shard('l1', '{ch,at}');
SELECT shard_ext.add_list_shard('l1', '{fr,NULL}');
SELECT shard_ext.add_list_shard('l1', '{}');
SELECT shard_ext.add_list_shard('l1', NULL);
SELECT shard_ext.add_range_shard('l1', 'a', 'b');
SELECT shard_ext.add_list_shard('l1', "values" => '{ch}', node => 'worker_1') IS NOT NULL AS added;
INSERT INTO l1 VALUES ('de', 1), ('ch', 2), (NULL, 3);
INSERT INTO l1 VALUES ('us', 1);
SELECT shard_ext.add_default_shard('l1', 'worker_2') IS NOT NULL AS added;
INSERT INTO l1 VALUES ('us', 4), ('uk', 5);
SELECT shard_ext.add_list_shard('l1', '{us}', 'worker_1') IS NOT NULL AS added;
SELECT * FROM l1 ORDER BY v;
SELECT list_values, has_null, is_default FROM shard_ext.shard_group g JOIN shard_ext.distributed_table t USING (colocation_id)
    WHERE relid = 'l1'::regclass ORDER BY ordinal;
SELECT undistribute_table('l1');
SELECT * FROM l1 ORDER BY v;

-- ids are drawn unseen: lastval() is that of the user's own sequences
CREATE SEQUENCE mine START 7;
CREATE TABLE drawn (k int, v text);
SELECT create_distributed_table('drawn', 'k', colocate_with => 'none', shard_count => 3);
SELECT lastval();
SELECT nextval('mine');
SELECT undistribute_table('drawn');
BEGIN;
SELECT create_distributed_table('drawn', 'k', colocate_with => 'none', shard_count => 3);
SELECT max(shard_group_id) AS highest FROM shard_ext.shard_group \gset
ROLLBACK;
SELECT create_distributed_table('drawn', 'k', colocate_with => 'none', shard_count => 3);
SELECT lastval(), currval('mine'), min(shard_group_id) > :highest AS new_ids FROM shard_ext.distributed_table JOIN shard_ext.shard_group USING (colocation_id)
    WHERE relid = 'drawn'::regclass;
DROP TABLE drawn;
DROP SEQUENCE mine;

DROP SCHEMA methods CASCADE;
SELECT count(*) FROM shard_ext.shard_group WHERE shard_group_id BETWEEN 1010001 AND 1019999;
SELECT count(*) FROM shard_ext.placement WHERE shard_group_id BETWEEN 1010001 AND 1019999;
\c regression_worker_1
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'methods%';
\c regression_worker_2
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'methods%';
DROP SCHEMA methods CASCADE;
\c regression_worker_1
DROP SCHEMA methods CASCADE;
