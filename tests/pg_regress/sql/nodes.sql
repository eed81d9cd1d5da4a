-- Nodes: the wrapper's options, adding, checking, changing and removing them.
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 102008;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS host, current_setting('port') AS port \gset

-- options of servers and user mappings are libpq's
CREATE SERVER bad FOREIGN DATA WRAPPER shard_ext OPTIONS (host 'localhost', port 'http');
CREATE SERVER bad FOREIGN DATA WRAPPER shard_ext OPTIONS (connect_timeout 'soon');
\set VERBOSITY terse
CREATE SERVER bad FOREIGN DATA WRAPPER shard_ext OPTIONS (password 'secret');
CREATE SERVER bad FOREIGN DATA WRAPPER shard_ext OPTIONS (nonsense 'x');
CREATE SERVER several FOREIGN DATA WRAPPER shard_ext
    OPTIONS (host 'one,two', port '5432,5433', target_session_attrs 'read-write');
CREATE USER MAPPING FOR CURRENT_USER SERVER several OPTIONS (host 'localhost');
CREATE USER MAPPING FOR CURRENT_USER SERVER several OPTIONS (user 'app', password 'secret', sslcert 'x');
DROP SERVER several CASCADE;
ALTER FOREIGN DATA WRAPPER shard_ext OPTIONS (ADD host 'x');
\set VERBOSITY default

-- what add_node refuses
SELECT shard_ext.add_node(NULL);
SELECT shard_ext.add_node('');
SELECT shard_ext.add_node(repeat('n', 64));
SELECT shard_ext.add_node('n', 'h', options => '["user"]');
SELECT shard_ext.add_node('n', 'h', options => '{"user": {}}');
SELECT shard_ext.add_node('n', 'h', options => '{"host": "i"}');
SELECT shard_ext.add_node('worker_1', :'host', :'port', 'regression_worker_1');
SELECT shard_ext.add_node('worker_1_again', :'host', :'port', 'regression_worker_1');
CREATE DATABASE regression_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
SELECT shard_ext.add_node('latin1', :'host', :'port', 'regression_latin1');
DROP DATABASE regression_latin1;
\set VERBOSITY sqlstate
SELECT shard_ext.add_node('nowhere', :'host', :'port', 'regression_nowhere');
SELECT shard_ext.add_node('nobody', :'host', :'port', 'regression_worker_1', '{"user": "regress_nobody"}');
SELECT shard_ext.add_node('nothing', '127.0.0.1', 1);
SET shard_ext.node_connection_timeout = '100ms';
SELECT shard_ext.add_node('silent', '192.0.2.1', 5432);
RESET shard_ext.node_connection_timeout;
\set VERBOSITY default
-- nothing of them is left
SELECT srvname FROM pg_foreign_server ORDER BY 1;

-- a role of the node without the right to create schemas
CREATE ROLE regress_reader LOGIN;
SELECT shard_ext.add_node('reader', :'host', :'port', 'template1', '{"user": "regress_reader"}');
DROP ROLE regress_reader;

-- any name; a server that is there already; the coordinator itself
CREATE DATABASE "regression odd ""ü""";
SELECT shard_ext.add_node('odd "name'' ü', :'host', :'port', 'regression odd "ü"') > 2 AS added;
SELECT check_name, passed, reason FROM shard_ext.check_node('odd "name'' ü');
ALTER SERVER "odd ""name' ü" RENAME TO odd;
SELECT node_name, dbname FROM shard_ext.nodes ORDER BY 1;
BEGIN;
SELECT shard_ext.remove_node('odd');
SELECT count(*) FROM shard_ext.nodes;
SELECT shard_ext.check_node('odd');
ROLLBACK;
BEGIN;
SAVEPOINT a;
ALTER SERVER odd RENAME TO odder;
SELECT passed FROM shard_ext.check_node('odder') WHERE check_name = 'connection';
ROLLBACK TO a;
SELECT passed FROM shard_ext.check_node('odd') WHERE check_name = 'connection';
COMMIT;
SELECT shard_ext.remove_node('odd');
SELECT count(*) FROM pg_foreign_server WHERE srvname = 'odd';
DO $$ BEGIN
    EXECUTE format('CREATE SERVER odd FOREIGN DATA WRAPPER shard_ext OPTIONS (host %L, port %L, dbname %L)',
                   split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'),
                   'regression odd "ü"');
END $$;
SELECT shard_ext.add_node('odd', dbname => 'x');
SELECT shard_ext.add_node('odd') > 3 AS adopted;
-- without shards, its server may be dropped like any other
DROP SERVER odd;
SELECT node_name, should_have_shards, is_coordinator, same_collation FROM shard_ext.nodes ORDER BY 1;
DROP DATABASE "regression odd ""ü""";
SELECT shard_ext.add_node('self', :'host', :'port') IS NOT NULL AS added;
SELECT node_name, is_coordinator FROM shard_ext.nodes ORDER BY 1;

-- properties
SELECT shard_ext.set_node_property('self', 'should_have_shards', false);
SELECT node_name, should_have_shards FROM shard_ext.nodes ORDER BY 1;
SELECT shard_ext.set_node_property('self', 'colour', true);
SELECT shard_ext.set_node_property('self', 'should_have_shards', NULL);
SELECT shard_ext.set_node_property('other', 'should_have_shards', true);

-- nodes with shards stay
CREATE TABLE kept (k int PRIMARY KEY);
SELECT create_distributed_table('kept', 'k', shard_count => 2);
SELECT node_name, shard_groups FROM shard_ext.nodes ORDER BY 1;
SELECT table_name, shard_name, bounds, node_name, size > 0 AS sized FROM shard_ext.shards ORDER BY 1, 2;
SELECT citus_table_type, distribution_column, table_size IS NOT NULL AS sized, shard_count FROM citus_tables WHERE table_name = 'kept'::regclass;
SELECT shard_ext.remove_node('worker_1');
DROP SERVER worker_1;
DROP SERVER worker_1 CASCADE;
DROP TABLE kept;

-- reference tables come to a new node, and go with it
CREATE TABLE copied (k int PRIMARY KEY, v text);
INSERT INTO copied VALUES (1, 'one'), (2, 'two');
SELECT create_reference_table('copied');
SELECT shard_ext.remove_node('self');
SELECT shard_ext.add_node('self', :'host', :'port') IS NOT NULL AS added;
SELECT shard_name, node_name, size > 0 AS filled FROM shard_ext.shards WHERE table_name = 'copied'::regclass ORDER BY 2;
SELECT shard_ext.remove_node('self');
DROP TABLE copied;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%reference';

-- what tables depend on is on all nodes, also those without shards of them and those that come later
CREATE TYPE coordinates AS (x int, y int);
CREATE TABLE placed (k int, c coordinates);
SELECT create_distributed_table('placed', 'k', shard_count => 1);
CREATE TABLE spread (k int);
SELECT create_distributed_table('spread', 'k', shard_count => 4);
INSERT INTO spread SELECT generate_series(1, 9);
SELECT count(*), max((k, 7)::coordinates::text) FROM spread WHERE ((k, 7)::coordinates).x > 4;
CREATE DATABASE regression_worker_late;
SELECT shard_ext.add_node('late', :'host', :'port', 'regression_worker_late') IS NOT NULL AS added;
\c regression_worker_late
SELECT '(1,2)'::coordinates;
\c regression
SELECT shard_ext.remove_node('late');
DROP DATABASE regression_worker_late;
DROP TABLE placed, spread;
DROP TYPE coordinates;

-- who may
CREATE ROLE regress_admin;
SET ROLE regress_admin;
SELECT shard_ext.add_node('mine', :'host', :'port');
SELECT shard_ext.check_node('worker_1');
SELECT citus_add_node('localhost', 5432);
SELECT count(*) > 1 AS visible FROM shard_ext.nodes;
UPDATE shard_ext.node SET should_have_shards = false;
RESET ROLE;
GRANT EXECUTE ON FUNCTION shard_ext.add_node, shard_ext.remove_node TO regress_admin;
SET ROLE regress_admin;
SELECT shard_ext.add_node('mine', :'host', :'port');
RESET ROLE;
GRANT USAGE ON FOREIGN DATA WRAPPER shard_ext TO regress_admin;
SET ROLE regress_admin;
SELECT shard_ext.add_node('mine', :'host', :'port') IS NOT NULL AS added;
RESET ROLE;
SELECT pg_get_userbyid(srvowner) FROM pg_foreign_server WHERE srvname = 'mine';
SET ROLE regress_admin;
SELECT shard_ext.remove_node('worker_1');
SELECT shard_ext.remove_node('mine');
RESET ROLE;
DROP OWNED BY regress_admin;
DROP ROLE regress_admin;

-- as Citus names them
SELECT citus_add_node(:'host', :port) IS NOT NULL AS added;
SELECT citus_add_node(:'host', :port) = citus_add_node(:'host', :port) AS found_again;
SELECT node_name = :'host' || ':' || :'port' AS named_by_place, is_coordinator FROM shard_ext.nodes WHERE is_coordinator;
SELECT citus_set_coordinator_host(:'host', :port);
SELECT should_have_shards FROM shard_ext.nodes WHERE is_coordinator;
SELECT citus_set_node_property(:'host', :port, 'shouldhaveshards', true);
SELECT should_have_shards FROM shard_ext.nodes WHERE is_coordinator;
SELECT count(*) FROM citus_get_active_worker_nodes();
SELECT count(*) FROM master_get_active_worker_nodes();
SELECT role, active, count(*) FROM citus_nodes GROUP BY 1, 2 ORDER BY 1;
SELECT citus_remove_node(:'host', :port);
SELECT citus_remove_node('nowhere', 1);
SELECT citus_add_node('standby', 5432, noderole => 'secondary');
SELECT node_name FROM shard_ext.nodes ORDER BY 1;
