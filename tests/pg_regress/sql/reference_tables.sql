-- Copies of reference tables: compared, and who may do that.
CREATE TABLE rates (currency text PRIMARY KEY, rate numeric, at timestamptz DEFAULT '2024-01-01 00:00+00', gone int);
ALTER TABLE rates DROP COLUMN gone;
SELECT create_reference_table('rates');
INSERT INTO rates VALUES ('EUR', 1), ('USD', 0.92), ('JPY', NULL);
SELECT node, rows, checksum > 0 AS summed, equal FROM shard_ext.check_reference_table('rates') ORDER BY node NULLS FIRST;
UPDATE rates SET rate = 0.93 WHERE currency = 'USD';
DELETE FROM rates WHERE rate IS NULL;
SELECT bool_and(equal) AS equal, count(*) FROM shard_ext.check_reference_table('rates');
-- a copy that was changed behind our back
\connect regression_worker_2
UPDATE rates SET rate = 0.5 WHERE currency = 'EUR';
\connect regression
SELECT node, rows, equal FROM shard_ext.check_reference_table('rates') ORDER BY node NULLS FIRST;
\connect regression_worker_2
UPDATE rates SET rate = 1 WHERE currency = 'EUR';
\connect regression
SET TimeZone = 'Asia/Tokyo';
SET extra_float_digits = 0;
SELECT bool_and(equal) AS equal FROM shard_ext.check_reference_table('rates');
RESET ALL;
-- refused
CREATE TABLE plain_table (a int);
SELECT * FROM shard_ext.check_reference_table('plain_table');
CREATE ROLE regress_reference_reader;
SET ROLE regress_reference_reader;
SELECT * FROM shard_ext.check_reference_table('rates');
RESET ROLE;
DROP ROLE regress_reference_reader;
DROP TABLE rates, plain_table;
-- changes: PostgreSQL's here, rows by their key or by all of their values on the copies
CREATE TABLE keyed (id int PRIMARY KEY, note text, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE keyless (id int, note text, kind varchar(5));
SELECT create_reference_table('keyed');
SELECT create_reference_table('keyless');
\pset format unaligned
EXPLAIN (COSTS OFF) MERGE INTO keyed k USING keyless o ON o.id = k.id WHEN MATCHED AND o.note = 'x' THEN DELETE WHEN MATCHED THEN UPDATE SET note = o.note WHEN NOT MATCHED THEN INSERT VALUES (o.id, o.note);
EXPLAIN (COSTS OFF) INSERT INTO keyed VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET note = excluded.note;
EXPLAIN (COSTS OFF) DELETE FROM keyless WHERE id = 1;
EXPLAIN (COSTS OFF) UPDATE keyless SET note = 'x' WHERE id = 1;
\pset format aligned
INSERT INTO keyed VALUES (1, 'one'), (2, 'two');
INSERT INTO keyless VALUES (1, 'one'), (1, 'one'), (2, 'two');
-- a copy that lacks a row, and one that has other rows
\connect regression_worker_2
DELETE FROM keyed WHERE id = 1;
UPDATE keyless SET note = 'other' WHERE ctid = (SELECT min(ctid) FROM keyless WHERE id = 1);
\connect regression
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE keyed SET note = 'changed' WHERE id = 2;
UPDATE keyed SET note = 'changed';
ROLLBACK;
DELETE FROM keyless WHERE id = 1;
SELECT * FROM keyless ORDER BY id;
DROP TABLE keyed, keyless;
