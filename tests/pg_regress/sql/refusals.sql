-- Statements that are refused: the reason, and the way out.
CREATE SCHEMA refused;
SET search_path = refused;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 6000000;
CREATE TABLE users (tenant_id int, user_id int, name text, PRIMARY KEY (tenant_id, user_id));
CREATE TABLE events (event_id bigint PRIMARY KEY, tenant_id int, kind text);
CREATE TABLE plans (plan text PRIMARY KEY, price int);
SELECT create_distributed_table('users', 'tenant_id', shard_count => 4);
SELECT create_distributed_table('events', 'event_id', shard_count => 2);
SELECT create_reference_table('plans');

SELECT ctid FROM users ORDER BY 1 LIMIT 1 FOR UPDATE;
SELECT ctid, xmin FROM users;

ALTER TABLE users ADD COLUMN x int;
ALTER TABLE plans RENAME TO tariffs;
CREATE INDEX ON users (name);
DROP INDEX users_pkey;
CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE RULE r AS ON INSERT TO users DO INSTEAD NOTHING;
CREATE POLICY p ON users USING (true);
CREATE TABLE child () INHERITS (users);
CLUSTER users USING users_pkey;
REINDEX TABLE users;
ALTER SCHEMA refused RENAME TO renamed;

SET client_min_messages = warning;
DROP SCHEMA refused CASCADE;
