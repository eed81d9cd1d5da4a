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
