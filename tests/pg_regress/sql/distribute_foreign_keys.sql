-- Foreign keys between colocated tables and to reference tables; reference tables on nodes.
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 1020001;
\set SHOW_CONTEXT never
CREATE SCHEMA fk;
SET search_path = fk;
CREATE TABLE country (code char(2) PRIMARY KEY, name text NOT NULL);
CREATE TABLE city (id int PRIMARY KEY, country char(2) REFERENCES country ON DELETE CASCADE);
CREATE TABLE tenant (id int PRIMARY KEY, parent int, country char(2) REFERENCES country);
CREATE TABLE project (tenant int REFERENCES tenant ON DELETE CASCADE, id int, city int REFERENCES city, PRIMARY KEY (tenant, id));
CREATE TABLE task (tenant int, project int, id int, before int, PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, project) REFERENCES project ON UPDATE CASCADE,
    FOREIGN KEY (tenant, before) REFERENCES task ON DELETE SET NULL (before) DEFERRABLE);
INSERT INTO country VALUES ('de', 'Germany'), ('at', 'Austria');
INSERT INTO city VALUES (1, 'de'), (2, 'at');
INSERT INTO tenant SELECT i, NULL, 'de' FROM generate_series(1, 10) i;
INSERT INTO project SELECT i, j, 1 FROM generate_series(1, 10) i, generate_series(1, 3) j;
INSERT INTO task SELECT i, j, j, NULLIF(j - 1, 0) FROM generate_series(1, 10) i, generate_series(1, 3) j;
SELECT create_reference_table('city');
SELECT create_reference_table('country');
SELECT create_reference_table('city');
SELECT create_distributed_table('project', 'tenant', shard_count => 3);
SELECT create_distributed_table('tenant', 'country');
SELECT create_distributed_table('tenant', 'id', shard_count => 3);
SELECT create_distributed_table('project', 'id', shard_count => 3);
SELECT create_distributed_table('project', 'tenant', shard_count => 4);
SELECT create_distributed_table('project', 'tenant', shard_count => 3);
SELECT create_distributed_table('task', 'id', colocate_with => 'project');
SELECT create_distributed_table('task', 'tenant', colocate_with => 'project');
\c regression_worker_1
\d fk_1020001.task
\d fk_1020001.project
SELECT * FROM fk.country ORDER BY 1;
\d fk.city
\c regression
SET search_path = fk;
INSERT INTO project VALUES (99, 1, 1);
INSERT INTO task VALUES (1, 1, 4, 77);
INSERT INTO tenant VALUES (11, NULL, 'xx');
DELETE FROM country WHERE code = 'de';
SELECT count(*) FROM country;

-- keys that a node could not watch
CREATE TABLE set_null (tenant int REFERENCES tenant ON DELETE SET NULL, id int);
SELECT create_distributed_table('set_null', 'tenant', colocate_with => 'tenant');
CREATE TABLE to_local (tenant int, l int REFERENCES set_null);
CREATE TABLE plain (id int PRIMARY KEY);
CREATE TABLE to_plain (tenant int, l int REFERENCES plain);
SELECT create_distributed_table('to_plain', 'tenant', colocate_with => 'tenant');
SELECT create_reference_table('to_plain');
CREATE TABLE by_other (a int UNIQUE, b int, UNIQUE (a, b));
CREATE TABLE to_other (a int REFERENCES by_other (a));
SELECT create_distributed_table('by_other', 'b');
ALTER TABLE by_other DROP CONSTRAINT by_other_a_key CASCADE;
ALTER TABLE to_other ADD b int, ADD FOREIGN KEY (a, b) REFERENCES by_other (a, b);
SELECT create_distributed_table('by_other', 'b', shard_count => 2);
SELECT create_distributed_table('to_other', 'b', shard_count => 2);
DROP TABLE by_other, to_other;

-- a local table may reference a reference table
CREATE TABLE local_city (id int REFERENCES city);
INSERT INTO local_city VALUES (1);
INSERT INTO local_city VALUES (3);
INSERT INTO city VALUES (3, 'at');
INSERT INTO local_city VALUES (3);
DELETE FROM city WHERE id = 3;

-- TRUNCATE follows foreign keys on all nodes at once
TRUNCATE tenant;
BEGIN;
TRUNCATE tenant CASCADE;
SELECT count(*) FROM task;
ROLLBACK;
SELECT count(*) FROM task;
BEGIN;
TRUNCATE city, local_city, project, task;
SELECT (SELECT count(*) FROM city) AS city, (SELECT count(*) FROM task) AS task, (SELECT count(*) FROM tenant) AS tenant;
ROLLBACK;

-- undistribute what hangs together
SELECT undistribute_table('country');
SELECT undistribute_table('project');
BEGIN;
SELECT undistribute_table('project', cascade_via_foreign_keys => true);
SELECT count(*), sum(before) FROM task;
SELECT relid, kind FROM shard_ext.distributed_table WHERE relid::text !~ '\.' ORDER BY relid::text;
ROLLBACK;
BEGIN;
SELECT undistribute_table('country', true);
SELECT count(*) FROM task JOIN project ON (task.tenant, task.project) = (project.tenant, project.id) JOIN city ON city = city.id;
SELECT relid, kind FROM shard_ext.distributed_table WHERE relid::text !~ '\.';
ROLLBACK;

-- a new node gets the reference tables
CREATE DATABASE regression_worker_3;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS host, current_setting('port') AS port \gset
SELECT shard_ext.add_node('worker_3', :'host', :'port', 'regression_worker_3') IS NOT NULL AS added;
INSERT INTO country VALUES ('ch', 'Switzerland');
\c regression_worker_3
SELECT * FROM fk.country ORDER BY 1;
\d fk.city
\c regression
SET search_path = fk;

-- the coordinator as a node: its copies are beside the tables
SELECT shard_ext.add_node('here', :'host', :'port', 'regression') IS NOT NULL AS added;
CREATE TABLE spread (id int PRIMARY KEY, c char(2) REFERENCES country);
INSERT INTO spread SELECT i, 'ch' FROM generate_series(1, 100) i;
SELECT create_distributed_table('spread', 'id', shard_count => 4, colocate_with => 'none');
SELECT count(*) FROM spread;
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fk%' ORDER BY 1;
SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text LIKE 'fk\_%' ORDER BY 1, 2;
UPDATE country SET name = 'Helvetia' WHERE code = 'ch';
SELECT * FROM fk_reference.country WHERE code = 'ch';
DROP TABLE spread;
SELECT shard_ext.recover_prepared_transactions() IS NOT NULL AS recovered;
SELECT shard_ext.remove_node('here');
SELECT shard_ext.remove_node('worker_3');
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fk%' ORDER BY 1;
DROP DATABASE regression_worker_3 WITH (FORCE);

-- a dropped table takes foreign keys to it away on the nodes
DROP TABLE city;
DROP TABLE city CASCADE;
\c regression_worker_1
\d fk_1020001.project
\c regression
SET client_min_messages = warning;
DROP SCHEMA fk CASCADE;
SELECT count(*) FROM shard_ext.distributed_table WHERE relid::text LIKE 'fk.%';
\c regression_worker_1
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fk%' ORDER BY 1;
SELECT relname FROM pg_class WHERE relnamespace = 'fk'::regnamespace;
DROP SCHEMA fk;
\c regression_worker_2
DROP SCHEMA fk;
