-- Foreign keys between tables that one statement changes: they are checked when all of it has run.
CREATE TABLE wp (k int PRIMARY KEY, t text);
CREATE TABLE wc (k int, id int, t text, PRIMARY KEY (k, id), CONSTRAINT wc_fk FOREIGN KEY (k) REFERENCES wp);
CREATE TABLE wg (k int, id int, n int, CONSTRAINT wg_fk FOREIGN KEY (k, id) REFERENCES wc);
INSERT INTO wp SELECT i, 'p' || i FROM generate_series(1, 20) i;
INSERT INTO wc SELECT i, i, 'c' || i FROM generate_series(1, 12) i;
INSERT INTO wg SELECT i, i, i FROM generate_series(1, 6) i;
-- only: distributed
SELECT create_distributed_table('wp', 'k', shard_count => 4);
-- only: distributed
SELECT create_distributed_table('wc', 'k', colocate_with => 'wp');
-- only: distributed
SELECT create_distributed_table('wg', 'k', colocate_with => 'wp');
WITH p AS (INSERT INTO wp VALUES (31, 'a'), (32, 'b') RETURNING k) INSERT INTO wc SELECT k, k FROM p RETURNING k;
WITH c AS (INSERT INTO wc VALUES (33, 1), (34, 1) RETURNING k) INSERT INTO wp SELECT k, 'later' FROM c RETURNING *;
WITH c AS (INSERT INTO wc VALUES (35, 1), (36, 1)) INSERT INTO wp VALUES (35, 'later'), (36, 'later');
WITH c AS (INSERT INTO wc VALUES (37, 1), (38, 1)) INSERT INTO wp VALUES (37, 'one');
WITH c AS (INSERT INTO wc VALUES (37, 1)) INSERT INTO wp VALUES (37, 'one') RETURNING *;
WITH g AS (INSERT INTO wg VALUES (40, 1, 1), (41, 1, 1) RETURNING *), c AS (INSERT INTO wc SELECT k, id FROM g RETURNING k), p AS (INSERT INTO wp SELECT k, 'chain' FROM c RETURNING *) SELECT * FROM p, g WHERE p.k = g.k;
WITH g AS (INSERT INTO wg VALUES (42, 1, 1), (43, 1, 1) RETURNING *), p AS (INSERT INTO wp SELECT k, 'chain' FROM g RETURNING *) INSERT INTO wc SELECT k, 1 FROM p;
WITH p AS (DELETE FROM wp WHERE k IN (7, 8) RETURNING k) DELETE FROM wc USING p WHERE wc.k = p.k RETURNING wc.*;
WITH p AS (DELETE FROM wp WHERE k IN (9, 10)) DELETE FROM wc WHERE k IN (9, 10);
WITH c AS (DELETE FROM wc WHERE k IN (11, 12) RETURNING k) DELETE FROM wp USING c WHERE wp.k = c.k RETURNING wp.*;
WITH p AS (DELETE FROM wp WHERE k IN (1, 2) RETURNING k), c AS (DELETE FROM wc WHERE k IN (1, 2) RETURNING k), g AS (DELETE FROM wg WHERE k IN (1, 2) RETURNING k) SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM c), (SELECT count(*) FROM g);
WITH p AS (DELETE FROM wp WHERE k = 3), c AS (DELETE FROM wc WHERE k = 3) SELECT 1;
WITH p AS (DELETE FROM wp WHERE k IN (4, 5) RETURNING *), g AS (DELETE FROM wg USING p WHERE p.k = wg.k) DELETE FROM wc USING p WHERE p.k = wc.k;
WITH p AS (DELETE FROM wp WHERE k IN (6, 14) RETURNING *) UPDATE wc SET t = 'stays' WHERE k IN (6, 14);
SELECT * FROM wp ORDER BY k;
SELECT * FROM wc ORDER BY k, id;
SELECT * FROM wg ORDER BY k, id;
DROP TABLE wg, wc, wp;
