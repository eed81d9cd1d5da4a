-- A database of its own: without nodes, and DROP EXTENSION cleans the workers up.
CREATE DATABASE regression_other;
CREATE DATABASE regression_other_worker;
\c regression_other
CREATE TABLE t (k int PRIMARY KEY, v text);
SELECT 1 AS there FROM pg_proc WHERE proname = 'create_distributed_table';
CREATE EXTENSION shard_ext;
SELECT create_distributed_table('t', 'k');
SELECT create_distributed_table('t', 'k', 'range');
SELECT create_reference_table('t');
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS host, current_setting('port') AS port \gset
SELECT shard_ext.add_node('worker', :'host', :'port', 'regression_other_worker');
SELECT shard_ext.add_node('here', :'host', :'port', 'regression_other');
SELECT shard_ext.set_node_property('worker', 'shouldhaveshards', false);
SELECT shard_ext.set_node_property('here', 'shouldhaveshards', false);
SELECT create_distributed_table('t', 'k');
SELECT shard_ext.set_node_property('worker', 'shouldhaveshards', true);
SELECT shard_ext.set_node_property('here', 'shouldhaveshards', true);
-- names that fill their 63 bytes
CREATE SCHEMA "ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß";
CREATE TABLE "ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß"."äääääääääääääääääääääääääääääää" ("üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü" int PRIMARY KEY);
INSERT INTO "ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß"."äääääääääääääääääääääääääääääää" SELECT generate_series(1, 10);
SELECT create_distributed_table('"ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß"."äääääääääääääääääääääääääääääää"', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', shard_count => 3);
SELECT count(*) FROM "ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß"."äääääääääääääääääääääääääääääää";
INSERT INTO t VALUES (1, 'one'), (2, 'two');
SELECT create_distributed_table('t', 'k', shard_count => 3);
CREATE TABLE r (k int PRIMARY KEY REFERENCES t);
CREATE TABLE ref (k int PRIMARY KEY);
INSERT INTO ref VALUES (1);
SELECT create_reference_table('ref');
CREATE TABLE empty_reference ();
INSERT INTO empty_reference DEFAULT VALUES;
SELECT create_reference_table('empty_reference');
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname COLLATE "C";
\c regression_other_worker
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY n.nspname COLLATE "C", c.relname;
SELECT count(*) FROM empty_reference;
\c regression_other
DROP EXTENSION shard_ext;
BEGIN;
DROP EXTENSION shard_ext CASCADE;
SELECT count(*) FROM t;
CREATE EXTENSION shard_ext;
SELECT count(*) FROM shard_ext.nodes;
SELECT count(*) FROM t;
SELECT shard_ext.add_node('worker', :'host', :'port', 'regression_other_worker');
CREATE TABLE again (k int PRIMARY KEY);
SELECT create_distributed_table('again', 'k', shard_count => 2);
INSERT INTO again VALUES (1), (2);
SELECT count(*) FROM again;
ROLLBACK;
SELECT count(*) FROM t;
BEGIN;
DROP TABLE r, t;
DROP SCHEMA "ßßßßßßßßßßßßßßßßßßßßßßßßßßßßßßß" CASCADE;
ROLLBACK;
SELECT count(*) FROM t;
DROP EXTENSION shard_ext CASCADE;
SELECT count(*) FROM t;
SELECT count(*) FROM ref;
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname COLLATE "C";
SELECT count(*) FROM pg_prepared_xacts WHERE database LIKE 'regression_other%';
\c regression_other_worker
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema');
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname COLLATE "C";
\c regression_other
-- a session goes on when the extension comes back
SELECT count(*) FROM t;
CREATE EXTENSION shard_ext;
SELECT shard_ext.add_node('worker', :'host', :'port', 'regression_other_worker');
SELECT create_distributed_table('t', 'k', shard_count => 2);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
SELECT count(*) FROM t;
SELECT * FROM t WHERE k = 2;
DROP EXTENSION shard_ext CASCADE;
SELECT count(*) FROM t;
CREATE EXTENSION shard_ext;
SELECT shard_ext.add_node('worker', :'host', :'port', 'regression_other_worker');
SELECT create_reference_table('t');
INSERT INTO t VALUES (1, 'one'), (2, 'two');
SELECT * FROM t WHERE k = 2;
DROP EXTENSION shard_ext CASCADE;
\c regression
DROP DATABASE regression_other WITH (FORCE);
DROP DATABASE regression_other_worker WITH (FORCE);
