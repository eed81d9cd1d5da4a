-- Statements that once gave wrong rows. Most are about conditions that hold only for some of the rows: of an outer
-- join, of a sublink, of an arm of a set operation.
SELECT count(*) FROM a s1 LEFT JOIN b s2 ON s1.n = s2.k LEFT JOIN u s3 ON s1.id = s3.id AND s2.id = s3.id;
SELECT count(*) FROM a s1, b s2 WHERE NOT EXISTS (SELECT FROM u WHERE u.id = s1.id AND u.id = s2.id);
SELECT count(*) FROM a s1, b s2 WHERE EXISTS (SELECT FROM u WHERE u.id = s1.id AND u.id = s2.id) OR s1.n = 3;
SELECT s1.id, s2.id, (SELECT max(v) FROM u WHERE u.id = s1.id AND u.id = s2.id) FROM a s1, b s2;
SELECT s1.id, s2.id FROM a s1, b s2 UNION ALL SELECT id, id FROM u;
SELECT count(*), sum(x), sum(y) FROM (SELECT s1.id AS x, s2.id AS y FROM a s1, b s2 UNION ALL SELECT id, id FROM u) s;
SELECT count(*) FROM (a s1 JOIN b s2 ON s1.n = s2.k) FULL JOIN u s3 ON s1.id = s3.id AND s2.id = s3.id;
SELECT x, count(*) FROM (SELECT s2.id AS x FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id) s GROUP BY x;
SELECT x, n FROM (SELECT s2.id AS x, count(*) AS n FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id GROUP BY s2.id) s WHERE n > 1;
SELECT x, rank() OVER (PARTITION BY x ORDER BY y) FROM (SELECT s2.id AS x, s1.id AS y FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id) s;
SELECT s2.id FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id UNION SELECT id FROM u;
SELECT s2.id FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id EXCEPT SELECT id FROM u;
SELECT count(*) FROM c WHERE code = 'a'::name;
SELECT (SELECT sum(a.n)) FROM a;
SELECT id, n FROM a ORDER BY id, n LIMIT (SELECT max(n) FROM ref);
SELECT count(*) FROM a s1 LEFT JOIN ref ON s1.id = ref.id WHERE ref.id IS NULL;
SELECT s1.id, s.n FROM a s1, LATERAL (SELECT count(*) AS n FROM u WHERE u.id = s1.id AND u.id = 3) s;
SELECT count(*) FROM a s1, b s2, LATERAL (SELECT count(*) AS n FROM u WHERE u.id = s1.id AND u.id = s2.id) s;
SELECT count(*) FROM a s1 WHERE 0 IN (SELECT count(*) FROM u WHERE u.id = s1.id AND u.id = 3);
SELECT count(*) FROM a s1, b s2 WHERE 0 IN (SELECT count(*) FROM u WHERE u.id = s1.id AND u.id = s2.id);
SELECT s1.id, s.v FROM a s1, LATERAL (SELECT u.v FROM u WHERE u.id = s1.id AND u.id = 3 UNION ALL SELECT 1) s;
SELECT s1.id, s.v FROM a s1, LATERAL (SELECT u.v FROM u WHERE u.id = s1.id AND u.id = 3 UNION ALL SELECT b.v FROM b WHERE b.id = s1.id) s;
SELECT count(*) FROM a s1, LATERAL (SELECT u.id FROM u WHERE u.id = s1.id UNION ALL SELECT b.id FROM b) s;
SELECT count(*) FROM a s1, b s2 WHERE s1.id = 3 AND NOT EXISTS (SELECT FROM u WHERE u.id = s1.id AND u.id = s2.id);
SELECT count(*) FROM a s1 JOIN (SELECT id FROM ref WHERE EXISTS (SELECT FROM u WHERE u.id = ref.id) ORDER BY id LIMIT 3) s USING (id);
SELECT count(*) FROM a s1 JOIN (SELECT id FROM ref WHERE EXISTS (SELECT FROM u WHERE u.id = ref.id AND u.k > 10) ORDER BY id DESC LIMIT 3) s USING (id);
SELECT count(*) FROM a s1 WHERE EXISTS (SELECT FROM b s2 LEFT JOIN u ON u.id = s2.id AND s2.id = s1.id);
SELECT count(*) FROM a s1 WHERE n = (SELECT count(*) FROM b s2 LEFT JOIN u ON u.id = s2.id AND s2.id = s1.id);
SELECT n, (SELECT sum(a.n) + count(ref.id) FROM ref) FROM a GROUP BY n;
SELECT id FROM a ORDER BY id, n, t LIMIT (SELECT 3) OFFSET (SELECT max(id) FROM ref);
SELECT x, count(*) FROM (SELECT s2.id AS x FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id UNION ALL SELECT id FROM u) s GROUP BY x;
SELECT x FROM (SELECT DISTINCT s2.id AS x FROM a s1 LEFT JOIN b s2 ON s1.id = s2.id) s;
SELECT count(*) FROM l WHERE t = 'a'::name;
SELECT count(*) FROM (a s1 CROSS JOIN b s2) LEFT JOIN LATERAL (SELECT u.v FROM u WHERE u.id = s1.id AND u.id = s2.id) s ON true;
WITH x AS (SELECT s2.id FROM a s1 LEFT JOIN b s2 USING (id)) SELECT id, count(*) FROM x GROUP BY id;
SELECT CASE WHEN id IN (SELECT id FROM a) THEN id ELSE n END AS x FROM a UNION ALL SELECT id FROM a;
SELECT (SELECT max(k) FROM b s) + n FROM (SELECT v AS n, id FROM b) s UNION ALL SELECT n FROM loc UNION ALL SELECT id FROM a WHERE id IN (SELECT k FROM b);
SELECT sum(x), count(*) FROM (SELECT (SELECT max(n) FROM a) + n AS x FROM a UNION ALL SELECT id FROM a) s WHERE x > 3;
SELECT max(s1.id) FROM a s1 JOIN sealed s2 USING (id) JOIN (VALUES (1, 'a')) s3 (x1, x2) ON s1.id = s3.x1 WHERE s1.num > ALL (SELECT 1.50 FROM a s5);
SELECT s1.id FROM loc s1, evens(s1.id) s2 (x1), pairs s3, ref s4 WHERE s1.id = s2.x1 AND s1.id = s3.id AND s1.id = s4.id;
WITH q1 AS (SELECT s2.n AS x1, s2.id AS x2, s2.id AS x3 FROM a s2) SELECT s3.id AS c1 FROM a s3 JOIN (SELECT s5.x1 AS x1 FROM (SELECT s6.x1 AS x1 FROM q1 s6) s5) s4 ON s3.id = s4.x1;
WITH q1 AS ((SELECT s2.id AS x1 FROM a s2 WHERE s2.id = 1) UNION ALL (SELECT s3.id AS x1 FROM ref s3 JOIN l s4 ON s3.id = s4.id WHERE s3.id IS NULL) UNION ALL (SELECT s5.id AS x1 FROM a s5 WHERE s5.id IN (SELECT s6.id AS c1 FROM a s6 WHERE s6.id = s5.id))) SELECT s7.id AS c1 FROM a s7 JOIN q1 s8 ON s7.id = s8.x1;
WITH q1 AS (SELECT max(id) AS x1 FROM a) SELECT s5.x1 FROM (SELECT id AS x1 FROM a ORDER BY 1 LIMIT 1) s5 JOIN a s7 ON s5.x1 = s7.id AND s5.x1 IN (SELECT x1 FROM q1 WHERE x1 = 1) FULL JOIN a s9 ON s5.x1 = s9.id JOIN a s10 ON s5.x1 = s10.id;
SELECT count(*), sum(a.n) FROM a, c WHERE (a.n = c.n AND a.t = 'a' AND c.code > 'b') OR (a.n = c.n AND a.t IS NULL AND c.v = 3) OR (a.n = c.n AND a.n > 2 AND c.code IS NULL);
SELECT count(*) FROM a LEFT JOIN b ON a.id = b.id, c WHERE (a.n = c.n AND b.v IS NULL AND c.code > 'b') OR (a.n = c.v AND b.v = 3 AND c.v = 3);
SELECT s1.x1 FROM (VALUES (1, 'a'), (1, 'a')) s1 (x1, x2) JOIN a s2 ON s1.x1 = s2.id JOIN LATERAL ((SELECT s4.id AS x1 FROM a s4 WHERE s4.id = s1.x1) UNION ALL (SELECT s5.id FROM a s5)) s3 ON s1.x1 = s3.x1;
-- what RETURNING reads must be on the row's node
-- refused: 0A000
INSERT INTO c (code, id, n) VALUES ('a', 1, 1) RETURNING (SELECT max(id) FROM a) AS m;
-- refused: 0A000
DELETE FROM a USING b s2 WHERE NOT EXISTS (SELECT FROM u WHERE u.id = a.id AND u.id = s2.id) AND a.n = s2.k;
-- refused: 0A000
INSERT INTO ref (id, t, e, n) VALUES (3, 'a', 'ok'::mood, 1) ON CONFLICT (id) DO UPDATE SET t = ref.t WHERE ref.id = (SELECT max(s1.id) FROM a s1);
BEGIN;
UPDATE a SET n = a.id RETURNING a.id AS c1, (a.t COLLATE "C") AS c2;
INSERT INTO r (d, id, t) VALUES ('2024-01-07', 1, 'a'), ('2024-01-08', 2, 'b') RETURNING id, (t COLLATE "C") < 'b' AS less;
DELETE FROM u USING a s1 FULL JOIN a s2 USING (id) WHERE u.id = s1.id AND u.id = 1;
UPDATE u SET v = s1.n FROM a s1 LEFT JOIN b s2 USING (id) WHERE u.id = s1.id AND id = 3 AND s1.n = 3;
SELECT * FROM u;
ROLLBACK;
SELECT longest(s1::text) FROM busy s1 WHERE s1.id = 1;
SELECT s1 FROM busy s1;
SELECT s1, row_to_json(s1) FROM pairs s1 WHERE id = 3;
SELECT count(s1), count(DISTINCT s1) FROM pairs s1;
SELECT s1.id FROM a s1 JOIN (SELECT s5.id AS x1 FROM a s5 TABLESAMPLE SYSTEM (100)) s2 ON s1.id = s2.x1;
SELECT s1.id, s2.x1 FROM a s1 LEFT JOIN LATERAL (SELECT s5.n AS x1 FROM u s4 JOIN a s5 TABLESAMPLE BERNOULLI (100) USING (id) WHERE s4.v = s1.n) s2 ON true;
