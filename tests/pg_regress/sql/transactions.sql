-- Transactions over several nodes, seen from one session. Crashes are tests/cluster's.
CREATE SCHEMA transactions;
SET search_path = transactions;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 7000000;
CREATE TABLE accounts (id int PRIMARY KEY, balance int CHECK (balance >= 0));
SELECT create_distributed_table('accounts', 'id', shard_count => 4);
CREATE TABLE local_log (message text);
INSERT INTO accounts SELECT g, 100 FROM generate_series(1, 20) g;

-- both nodes and the coordinator's own table, or nothing
BEGIN;
UPDATE accounts SET balance = balance - 30 WHERE id = 1;
UPDATE accounts SET balance = balance + 30 WHERE id = 2;
INSERT INTO local_log VALUES ('transferred');
COMMIT;
BEGIN;
UPDATE accounts SET balance = balance + 1;
INSERT INTO local_log VALUES ('rolled back');
ROLLBACK;
SELECT sum(balance), count(*) FILTER (WHERE balance <> 100) FROM accounts;
SELECT * FROM local_log;

-- an error of one node undoes all
BEGIN;
UPDATE accounts SET balance = balance + 100 WHERE id = 2;
UPDATE accounts SET balance = balance - 100 WHERE id = 1;
SELECT 1;
COMMIT;
SELECT sum(balance), max(balance) FROM accounts;

-- savepoints
BEGIN;
SAVEPOINT a;
UPDATE accounts SET balance = 0;
SAVEPOINT b;
DELETE FROM accounts;
SELECT count(*) FROM accounts;
ROLLBACK TO b;
SELECT count(*), sum(balance) FROM accounts;
ROLLBACK TO a;
UPDATE accounts SET balance = 50 WHERE id = 3;
RELEASE a;
COMMIT;
SELECT sum(balance) FROM accounts;

-- errors caught in PL/pgSQL
DO $$
BEGIN
    UPDATE accounts SET balance = 77 WHERE id = 4;
    BEGIN
        UPDATE accounts SET balance = 78 WHERE id = 5;
        UPDATE accounts SET balance = -1 WHERE id = 6;
    EXCEPTION WHEN check_violation THEN
        RAISE NOTICE 'caught: %', sqlerrm;
    END;
END $$;
SELECT id, balance FROM accounts WHERE id IN (4, 5, 6) ORDER BY id;

-- changes of tables are part of it
BEGIN;
CREATE TABLE short_lived (id int PRIMARY KEY);
SELECT create_distributed_table('short_lived', 'id', shard_count => 2);
INSERT INTO short_lived VALUES (1), (2), (3);
SELECT count(*) FROM short_lived;
TRUNCATE accounts;
ROLLBACK;
SELECT to_regclass('short_lived'), (SELECT count(*) FROM accounts), (SELECT count(*) FROM shard_ext.tables WHERE table_name::text ~ 'short_lived');

-- a client's own two-phase commit ends where nodes took part
BEGIN;
UPDATE accounts SET balance = 1 WHERE id = 7;
PREPARE TRANSACTION 'mine';
SELECT balance FROM accounts WHERE id = 7;

-- read only
BEGIN READ ONLY;
SELECT count(*) FROM accounts;
UPDATE accounts SET balance = 1 WHERE id = 7;
ROLLBACK;

-- crash points are for superusers, and nothing stays prepared
CREATE ROLE transactions_user;
SET ROLE transactions_user;
SET shard_ext.crash_point = 'after_prepare';
RESET ROLE;
DROP ROLE transactions_user;
BEGIN;
SET LOCAL shard_ext.crash_point = 'after_prepare:error';
UPDATE accounts SET balance = 0 WHERE id = 1;
UPDATE accounts SET balance = 0 WHERE id = 2;
COMMIT;
SELECT id, balance FROM accounts WHERE id IN (1, 2) ORDER BY id;
SELECT shard_ext.recover_prepared_transactions();
SELECT count(*) FROM pg_prepared_xacts;
SELECT count(*) FROM shard_ext.commit_record;

-- what was decided for a node that has been removed since goes
INSERT INTO shard_ext.commit_record SELECT 'shard_ext_1_' || i || '_99', 99 FROM generate_series(1, 2) i;
SELECT shard_ext.recover_prepared_transactions();
SELECT count(*) FROM shard_ext.commit_record;

SET client_min_messages = warning;
DROP SCHEMA transactions CASCADE;
