-- Owners, privileges and policies of shards; who may do what.
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 1030001;
CREATE ROLE regress_owner LOGIN;
CREATE ROLE regress_reader LOGIN;
CREATE ROLE "regress Role";
GRANT CREATE ON DATABASE regression, regression_worker_1, regression_worker_2 TO regress_owner;
SET SESSION AUTHORIZATION regress_owner;
CREATE SCHEMA privileges;
SET search_path = privileges;
GRANT USAGE ON SCHEMA privileges TO regress_reader;
CREATE TABLE docs (id int PRIMARY KEY, owner text DEFAULT current_user, body text);
INSERT INTO docs VALUES (1, 'regress_owner', 'a'), (2, 'regress_reader', 'b');
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs FORCE ROW LEVEL SECURITY;
CREATE POLICY "p 1" ON docs FOR SELECT TO regress_reader, regress_owner, "regress Role" USING (owner = current_user);
CREATE POLICY p2 ON docs AS RESTRICTIVE TO PUBLIC USING (id > 0) WITH CHECK (body <> 'x');
GRANT SELECT, INSERT ON docs TO regress_reader;
GRANT SELECT (id) ON docs TO "regress Role" WITH GRANT OPTION;
GRANT UPDATE (body, owner) ON docs TO regress_reader;
-- all rows move, whatever the policies would show
SELECT create_distributed_table('docs', 'id', shard_count => 2);
SELECT * FROM docs ORDER BY id;
\c regression_worker_1
\d privileges_1030001.docs
\dp privileges_1030001.docs
SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'privileges_1030001';
SELECT count(*) FROM privileges_1030001.docs;
\c regression_worker_2
SELECT count(*) FROM privileges_1030002.docs;
\c regression
SET search_path = privileges;
SELECT * FROM docs ORDER BY id;
REVOKE INSERT ON docs FROM regress_reader;
GRANT DELETE ON ALL TABLES IN SCHEMA privileges TO "regress Role";
GRANT USAGE ON SCHEMA privileges TO PUBLIC;
REVOKE USAGE ON SCHEMA privileges FROM regress_reader;
\c regression_worker_1
\dp privileges_1030001.docs
SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'privileges_1030001';
\c regression
SET SESSION AUTHORIZATION regress_reader;
SET search_path = privileges;
SELECT * FROM docs ORDER BY id;
SELECT undistribute_table('docs');
SELECT create_reference_table('docs');
SELECT shard_ext.add_default_shard('docs');
DROP TABLE docs;
TRUNCATE docs;
ALTER TABLE docs OWNER TO regress_reader;
RESET SESSION AUTHORIZATION;
ALTER TABLE docs OWNER TO "regress Role";
\c regression_worker_1
\dt privileges_1030001.docs
\c regression
SET SESSION AUTHORIZATION regress_owner;
SET search_path = privileges;
SELECT undistribute_table('docs');
CREATE TABLE mine (k int);
SELECT create_distributed_table('mine', 'k', shard_count => 2);
RESET SESSION AUTHORIZATION;
ALTER TABLE docs OWNER TO regress_owner;
-- what a role owns goes on the nodes as well
REVOKE CREATE ON DATABASE regression, regression_worker_1, regression_worker_2 FROM regress_owner;
SET client_min_messages = warning;
DROP OWNED BY regress_owner CASCADE;
SELECT count(*) FROM shard_ext.shard_group WHERE shard_group_id BETWEEN 1030001 AND 1039999;
\c regression_worker_1
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'privileges%';
DROP OWNED BY regress_owner, regress_reader, "regress Role" CASCADE;
\c regression_worker_2
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'privileges%';
DROP OWNED BY regress_owner, regress_reader, "regress Role" CASCADE;
\c regression
DROP OWNED BY regress_owner, regress_reader, "regress Role" CASCADE;
DROP ROLE regress_owner, regress_reader, "regress Role";

-- two owners in one schema, and one login for all on the nodes
CREATE ROLE regress_one LOGIN;
CREATE ROLE regress_two LOGIN;
CREATE ROLE regress_service LOGIN;
GRANT CREATE ON DATABASE regression, regression_worker_1, regression_worker_2 TO regress_one, regress_two, regress_service;
SET SESSION AUTHORIZATION regress_one;
CREATE SCHEMA shared;
GRANT USAGE, CREATE ON SCHEMA shared TO regress_two;
CREATE TABLE shared.one (k int PRIMARY KEY);
SELECT create_distributed_table('shared.one', 'k', shard_count => 2);
SET SESSION AUTHORIZATION regress_two;
CREATE TABLE shared.two (k int);
SELECT create_distributed_table('shared.two', 'k', shard_count => 2);
INSERT INTO shared.two VALUES (1);
SELECT * FROM shared.one;
DROP TABLE shared.two;
SET SESSION AUTHORIZATION regress_one;
GRANT SELECT ON shared.one TO regress_two;
SELECT undistribute_table('shared.one');
RESET SESSION AUTHORIZATION;
CREATE USER MAPPING FOR regress_one SERVER worker_1 OPTIONS (user 'regress_service');
CREATE USER MAPPING FOR regress_one SERVER worker_2 OPTIONS (user 'regress_service');
CREATE USER MAPPING FOR regress_two SERVER worker_1 OPTIONS (user 'regress_service');
CREATE USER MAPPING FOR regress_two SERVER worker_2 OPTIONS (user 'regress_service');
SET SESSION AUTHORIZATION regress_one;
INSERT INTO shared.one VALUES (1), (2);
ALTER TABLE shared.one ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON shared.one TO regress_two USING (k > 1);
SELECT create_distributed_table('shared.one', 'k', shard_count => 2);
SELECT * FROM shared.one ORDER BY k;
SET SESSION AUTHORIZATION regress_two;
SELECT * FROM shared.one ORDER BY k;
RESET SESSION AUTHORIZATION;
\c regression_worker_1
SELECT nspname, nspowner::regrole, relname, relowner::regrole, relacl FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname LIKE 'shared\_%' AND relkind = 'r' ORDER BY 1;
\c regression
SET client_min_messages = warning;
DROP SCHEMA shared CASCADE;
DROP OWNED BY regress_one, regress_two, regress_service;
\c regression_worker_1
DROP OWNED BY regress_one, regress_two, regress_service;
\c regression_worker_2
DROP OWNED BY regress_one, regress_two, regress_service;
\c regression
DROP ROLE regress_one, regress_two, regress_service;

-- DELETE and MERGE read rows FOR UPDATE; where UPDATE has policies of its own, a login that they hold for must not miss rows
CREATE ROLE regress_own LOGIN;
CREATE SCHEMA policies;
SET search_path = policies;
GRANT USAGE ON SCHEMA policies TO regress_own;
CREATE TABLE items (k int, id int, v int, PRIMARY KEY (k, id));
INSERT INTO items SELECT i % 7, i, i FROM generate_series(1, 20) i;
CREATE TABLE wanted (k int, id int);
INSERT INTO wanted SELECT k, id FROM items;
CREATE VIEW those AS SELECT id FROM wanted WHERE id > 10;
GRANT ALL ON items TO regress_own;
GRANT SELECT ON those TO regress_own;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY s ON items FOR SELECT USING (true);
CREATE POLICY d ON items FOR DELETE USING (true);
CREATE POLICY u ON items FOR UPDATE USING (v < 5);
SELECT create_distributed_table('items', 'k', shard_count => 2);
SELECT create_distributed_table('wanted', 'k', shard_count => 2);
SET SESSION AUTHORIZATION regress_own;
\set VERBOSITY terse
DELETE FROM items WHERE v IN (SELECT max(v) FROM items);
MERGE INTO items USING (SELECT k, id FROM items OFFSET 0) w ON w.k = items.k AND w.id = items.id
    WHEN MATCHED AND items.id > 10 THEN DELETE;
UPDATE items SET v = random() * 0;
DELETE FROM items WHERE k = 5 AND id = 5;
\set VERBOSITY default
\set SHOW_CONTEXT never
-- the view's owner may read the table, the login at the node may not
SELECT count(*) FROM those;
RESET SESSION AUTHORIZATION;
CREATE USER MAPPING FOR regress_own SERVER worker_1 OPTIONS (user 'postgres');
CREATE USER MAPPING FOR regress_own SERVER worker_2 OPTIONS (user 'postgres');
SET SESSION AUTHORIZATION regress_own;
SELECT count(*) FROM those;
DELETE FROM items WHERE v IN (SELECT max(v) FROM items);
MERGE INTO items USING (SELECT k, id FROM items OFFSET 0) w ON w.k = items.k AND w.id = items.id
    WHEN MATCHED AND items.id > 10 THEN DELETE;
SELECT count(*) FROM items;
RESET SESSION AUTHORIZATION;
SET client_min_messages = warning;
DROP SCHEMA policies CASCADE;
DROP OWNED BY regress_own CASCADE;
\c regression_worker_1
DROP OWNED BY regress_own;
\c regression_worker_2
DROP OWNED BY regress_own;
\c regression
DROP ROLE regress_own;

-- a login under its own name: the schema of a reference table's copies, columns with defaults, rows that policies hide
CREATE ROLE regress_login LOGIN;
CREATE SCHEMA logins;
SET search_path = logins;
CREATE SEQUENCE numbers;
CREATE TABLE places (id int PRIMARY KEY, name text);
CREATE TABLE notes (k int PRIMARY KEY, n int DEFAULT 5, id int DEFAULT nextval('numbers'), body text, secret text);
CREATE TABLE private (k int, id int, owner text DEFAULT current_user, v int, PRIMARY KEY (k, id));
INSERT INTO places VALUES (1, 'one');
INSERT INTO private VALUES (1, 1, 'regress_login', 1), (2, 2, 'somebody', 2);
GRANT USAGE ON SCHEMA logins TO regress_login;
GRANT USAGE ON SEQUENCE numbers TO regress_login;
GRANT SELECT ON places TO regress_login;
SELECT create_reference_table('places');
SELECT create_distributed_table('notes', 'k', shard_count => 2), create_distributed_table('private', 'k', shard_count => 2);
GRANT SELECT, INSERT (k, body), UPDATE (n, body) ON notes TO regress_login;
GRANT ALL ON private TO regress_login;
\c regression_worker_1
SELECT nspacl FROM pg_namespace WHERE nspname = 'logins';
SELECT DISTINCT attname, attacl FROM pg_attribute WHERE attrelid IN (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname LIKE 'logins\_%' AND relname = 'notes') AND attacl IS NOT NULL ORDER BY 1;
\c regression
SET SESSION AUTHORIZATION regress_login;
SET search_path = logins;
\set SHOW_CONTEXT never
INSERT INTO notes (k, body) VALUES (1, 'a');
INSERT INTO notes (k, body) VALUES (2, 'b'), (3, 'c');
INSERT INTO notes (k, secret) VALUES (4, 'd');
SELECT k, name FROM notes JOIN places ON k = places.id;
INSERT INTO notes (k, body) VALUES (1, 'x'), (9, 'y') ON CONFLICT (k) DO UPDATE SET n = nextval('numbers') RETURNING k, n, body;
INSERT INTO notes (k, body) VALUES (1, 'x'), (9, 'y') ON CONFLICT (k) DO UPDATE SET secret = nextval('numbers');
RESET SESSION AUTHORIZATION;
SELECT undistribute_table('private');
ALTER TABLE private ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON private USING (owner = current_user) WITH CHECK (v < 100);
SELECT create_distributed_table('private', 'k', shard_count => 2);
SET SESSION AUTHORIZATION regress_login;
SELECT * FROM private;
INSERT INTO private (k, id, v) VALUES (1, 1, 1), (3, 3, 1) ON CONFLICT (k, id) DO UPDATE SET v = 40 + 0 * nextval('numbers') RETURNING *;
INSERT INTO private (k, id, v) VALUES (1, 1, 1), (2, 2, 1) ON CONFLICT (k, id) DO UPDATE SET v = 41 + 0 * nextval('numbers') RETURNING *;
INSERT INTO private (k, id, v) VALUES (1, 1, 1) ON CONFLICT (k, id) DO UPDATE SET v = 400 + 0 * nextval('numbers') RETURNING *;
INSERT INTO private (k, id, v) VALUES (1, 1, 1), (4, 4, 1) ON CONFLICT (k, id) DO NOTHING RETURNING *, (SELECT count(*) FROM notes WHERE notes.k = private.k);
INSERT INTO private (k, id, v) VALUES (2, 2, 1) ON CONFLICT (k, id) DO NOTHING RETURNING *, (SELECT count(*) FROM notes WHERE notes.k = private.k);
INSERT INTO private (k, id, v) VALUES (2, 2, 1) ON CONFLICT (k, id) DO NOTHING RETURNING *;
RESET SESSION AUTHORIZATION;
REVOKE USAGE ON SCHEMA logins FROM regress_login;
\c regression_worker_1
SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'logins';
\c regression
SET client_min_messages = warning;
DROP SCHEMA logins CASCADE;
DROP OWNED BY regress_login;
\c regression_worker_1
DROP OWNED BY regress_login;
\c regression_worker_2
DROP OWNED BY regress_login;
\c regression
DROP ROLE regress_login;
