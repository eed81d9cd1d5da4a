-- NOT IN over rows that are elsewhere: with NULLs on either side, without rows, by several columns, and by estimates that leave
-- other ways than to send values
-- block
SELECT id, n FROM a WHERE n NOT IN (SELECT id FROM c) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT id FROM c WHERE id IS NOT NULL) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT id FROM c WHERE id < 0) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT id FROM empty) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT k FROM u WHERE v > 0) AND d > '2024-01-02' ORDER BY 1, 2;
SELECT id, n FROM a WHERE n <> ALL (SELECT k FROM u WHERE v > 0) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n <> ALL (SELECT id FROM c WHERE n > 1) OR n IS NULL ORDER BY 1, 2;
SELECT id, n FROM a WHERE n > ALL (SELECT k FROM u WHERE k < 3) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n > ALL (SELECT id FROM c) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n >= ALL (SELECT id FROM empty) ORDER BY 1, 2;
SELECT id, n FROM a WHERE NOT (n > ANY (SELECT id FROM c WHERE id > 2)) ORDER BY 1, 2;
SELECT id, k FROM u WHERE id NOT IN (SELECT id FROM u x WHERE x.v > 2) ORDER BY 1, 2;
SELECT id, k FROM u WHERE (id, k) NOT IN (SELECT id, k FROM u x WHERE x.v > 2) ORDER BY 1, 2;
SELECT id, k FROM u WHERE (k, id) NOT IN (SELECT id, k FROM u x WHERE x.v > 2) ORDER BY 1, 2;
SELECT id, n FROM a WHERE (id, n) NOT IN (SELECT id, n FROM c) ORDER BY 1, 2;
SELECT id, n FROM a WHERE id NOT IN (SELECT id FROM u WHERE v > 1) ORDER BY 1, 2;
SELECT id, n FROM a WHERE id > 0 AND id NOT IN (SELECT id FROM u WHERE v > 1) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT u.id FROM u LEFT JOIN c ON u.k = c.id WHERE c.v IS NULL) ORDER BY 1, 2;
SELECT a.id, c.n FROM a LEFT JOIN c ON a.n = c.id AND c.n > 1 WHERE c.id NOT IN (SELECT k FROM u WHERE k > 3) ORDER BY 1, 2;
SELECT a.id, u.k FROM a LEFT JOIN u ON a.n = u.id WHERE u.id NOT IN (SELECT id FROM u WHERE v > 3) ORDER BY 1, 2;
SELECT a.id, u.k FROM a LEFT JOIN u ON a.n = u.id WHERE u.id NOT IN (SELECT id FROM u WHERE v < 0) ORDER BY 1, 2;
SELECT count(*) FROM a JOIN b USING (id) WHERE v NOT IN (SELECT n FROM c WHERE n > 2) AND b.t NOT IN (SELECT t FROM r WHERE t IS NOT NULL);
SELECT code FROM c WHERE code NOT IN (SELECT t FROM l) ORDER BY 1;
SELECT code FROM c WHERE code NOT IN (SELECT t FROM l WHERE t > 'b') ORDER BY 1;
SELECT n FROM loc WHERE n NOT IN (SELECT id FROM u) ORDER BY 1;
SELECT n FROM loc WHERE n NOT IN (SELECT v FROM u) ORDER BY 1;
SELECT n FROM loc WHERE n NOT IN (SELECT v FROM u WHERE v > 2) ORDER BY 1;
SELECT id FROM ref WHERE n NOT IN (SELECT id FROM a WHERE id > 3) AND n NOT IN (SELECT n FROM loc WHERE n > 4) ORDER BY 1;
SELECT id, (SELECT count(*) FROM b WHERE b.id = a.id AND b.v NOT IN (SELECT n FROM c WHERE n < 3)) FROM a ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT DISTINCT id FROM c) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT DISTINCT k FROM u WHERE v > 0 ORDER BY k) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT DISTINCT ON (v) k FROM u ORDER BY v, k) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT k FROM u GROUP BY k HAVING count(*) > 1) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT k FROM u ORDER BY k LIMIT 3) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT k FROM u UNION SELECT id FROM c WHERE id > 3) ORDER BY 1, 2;
SELECT id, num FROM a WHERE num NOT IN (SELECT id FROM c) ORDER BY 1, 2;
SELECT id, num FROM a WHERE num NOT IN (SELECT id FROM c WHERE id > 2) ORDER BY 1, 2;
SELECT id, n FROM a WHERE n NOT IN (SELECT num FROM r WHERE num IS NOT NULL) ORDER BY 1, 2;
SELECT count(*) FROM a WHERE 77 + (random() * 10)::int NOT IN (SELECT id FROM c WHERE id IS NOT NULL);
SELECT count(*) FROM a WHERE (random() * 0)::int NOT IN (SELECT id FROM empty);
BEGIN;
DELETE FROM a WHERE n NOT IN (SELECT id FROM c WHERE id > 2);
UPDATE b SET v = 0 WHERE id NOT IN (SELECT n FROM a WHERE n IS NOT NULL);
SELECT count(*) FROM a;
SELECT id, v FROM b ORDER BY 1, 2;
ROLLBACK;
-- again: SET shard_ext.broadcast_rows = 0
-- again: SET shard_ext.join_strategy = repartition
-- again: SET shard_ext.join_strategy = pull
RESET shard_ext.broadcast_rows;
RESET shard_ext.join_strategy;
