-- full joins on other columns than the keys, and joins on the nullable side of others, whose rows go to shards where they can
CREATE TABLE fu_left (id int PRIMARY KEY, v int, w bigint, t text, n numeric, d date);
CREATE TABLE fu_right (k int PRIMARY KEY, g int, w bigint, t varchar(8), n numeric, c char(4));
CREATE TABLE fu_third (k bigint PRIMARY KEY, g int, t text, u text COLLATE "C");
CREATE TABLE fu_free (k int, g int, t text);
CREATE TABLE fu_range (k int, g int, t text);
CREATE TABLE fu_empty (k int, g int, t text);
CREATE TABLE fu_few (id int PRIMARY KEY, t text);
CREATE TABLE fu_local (id int, t text);
-- only: distributed
SELECT create_distributed_table('fu_left', 'id');
-- only: distributed
SELECT create_distributed_table('fu_right', 'k');
-- only: distributed
SELECT create_distributed_table('fu_third', 'k', shard_count => 5);
-- only: distributed
SELECT create_distributed_table('fu_free', 'k', shard_count => 2);
-- only: distributed
SELECT create_distributed_table('fu_empty', 'k', shard_count => 3);
-- only: distributed
SELECT create_distributed_table('fu_range', 'k', 'range');
-- only: distributed
SELECT shard_ext.add_range_shard('fu_range', '0', '10');
-- only: distributed
SELECT shard_ext.add_range_shard('fu_range', '10', '40');
-- only: distributed
SELECT create_reference_table('fu_few');
INSERT INTO fu_left SELECT i, CASE WHEN i % 5 = 0 THEN NULL ELSE i % 60 END, CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 5000000000 + i ELSE i % 45 END, CASE WHEN i % 6 = 0 THEN NULL ELSE 't' || i % 25 END, i % 12, date '2024-01-01' + i % 10 FROM generate_series(1, 150) i;
INSERT INTO fu_right SELECT i, nullif(i % 8, 3), CASE WHEN i % 4 = 0 THEN NULL ELSE i * 2 END, 't' || i % 11, i % 5 + 0.0, 'c' || i % 3 FROM generate_series(0, 50) i;
INSERT INTO fu_third SELECT CASE WHEN i < 40 THEN i ELSE 5000000000 + i END, i % 6, 't' || i % 13, 'T' || i % 13 FROM generate_series(0, 80) i;
INSERT INTO fu_free SELECT nullif(i % 20, 7), nullif(i % 6, 2), nullif('t' || i % 9, 't4') FROM generate_series(0, 60) i;
INSERT INTO fu_range SELECT i % 40, i % 5, 't' || i % 7 FROM generate_series(0, 60) i;
INSERT INTO fu_few SELECT i, 't' || i FROM generate_series(0, 12) i;
INSERT INTO fu_local SELECT nullif(i % 13, 4), 't' || i FROM generate_series(0, 18) i;
-- block
-- one side by its key, the other one by anything; both by other columns
SELECT l.id, r.k, r.g FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k, r.g FROM fu_right r FULL JOIN fu_left l ON r.k = l.v ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.id = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_third r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_third r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.w = r.w ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.w ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.n = r.n ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.n = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.t = r.t ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.t::char(4) = r.c ORDER BY 1, 2;
SELECT l.id, r.k, r.u FROM fu_left l FULL JOIN fu_third r ON l.t = r.t COLLATE "C" ORDER BY 1, 2;
SELECT l.id, f.k, f.g FROM fu_left l FULL JOIN fu_free f ON l.v = f.k ORDER BY 1, 2, 3;
SELECT a.k, a.g, b.k FROM fu_free a FULL JOIN fu_free b ON a.g = b.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, r.g FROM fu_left l FULL JOIN fu_range r ON l.v = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, r.g FROM fu_left l FULL JOIN fu_range r ON l.v = r.g ORDER BY 1, 2, 3;
SELECT a.k, b.k FROM fu_range a FULL JOIN fu_range b ON a.g = b.k ORDER BY 1, 2;
SELECT l.id, e.k FROM fu_left l FULL JOIN fu_empty e ON l.v = e.g ORDER BY 1, 2;
SELECT l.id, e.k FROM fu_empty e FULL JOIN fu_left l ON l.v = e.k ORDER BY 1, 2;
SELECT count(*), count(a.k) FROM fu_empty a FULL JOIN fu_empty b ON a.g = b.g;
SELECT l.id, f.id FROM fu_left l FULL JOIN fu_few f ON l.v = f.id ORDER BY 1, 2;
SELECT r.k, f.id FROM fu_few f FULL JOIN fu_right r ON r.t = f.t ORDER BY 1, 2;
SELECT r.k, f.id FROM fu_few f FULL JOIN fu_right r ON r.k = f.id ORDER BY 1, 2;
SELECT l.id, f.id, f.t FROM fu_left l FULL JOIN fu_local f ON l.v = f.id ORDER BY 1, 2, 3;
SELECT r.k, f.t FROM fu_local f FULL JOIN fu_right r ON r.k = f.id ORDER BY 1, 2;
SELECT r.k, g FROM fu_right r FULL JOIN generate_series(45, 55) g ON r.k = g ORDER BY 1, 2;
SELECT l.id, x, y FROM fu_left l FULL JOIN (VALUES (3, 'a'), (3, 'b'), (NULL, 'c'), (999, 'd')) v (x, y) ON l.v = x ORDER BY 1, 2, 3;
-- what else the condition says
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND l.id % 2 = 0 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND r.g > 2 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g AND r.t <> l.t ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g AND r.t = l.t ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND l.id = 3 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND (l.id = 3 AND r.g = 1 OR l.id = 4 AND r.g = 2) ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v + 1 = r.g * 2 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON coalesce(l.v, 5) = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON upper(l.t) = upper(r.t) ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND EXISTS (SELECT FROM fu_third x WHERE x.g = r.g) ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k AND r.g IN (SELECT k FROM fu_free) ORDER BY 1, 2;
SELECT count(*) FROM fu_left l FULL JOIN fu_right r ON l.v < r.k;
-- what is above
SELECT count(*), count(l.id), count(r.k), sum(r.g) FROM fu_left l FULL JOIN fu_right r ON l.v = r.g;
SELECT r.g, count(*), count(l.id) FROM fu_left l FULL JOIN fu_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT coalesce(l.v, r.k), count(*) FROM fu_left l FULL JOIN fu_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT DISTINCT l.v, r.g FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.v, count(DISTINCT r.k), array_agg(r.k ORDER BY r.k) FROM fu_left l FULL JOIN fu_right r ON l.v = r.g GROUP BY 1 HAVING count(*) > 1 ORDER BY 1;
SELECT l.id, r.k, rank() OVER (PARTITION BY l.v ORDER BY l.id, r.k) FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY l.id DESC NULLS LAST, r.k LIMIT 7 OFFSET 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE l.id IS NULL ORDER BY 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE l.id IS NULL OR r.k IS NULL ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE l.id < 20 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE r.k < 20 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE r.k < 20 AND l.id < 60 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE coalesce(l.v, r.k) = 7 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE coalesce(r.k, -1) = -1 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE (l.id = 3 AND r.g = 1) OR (l.id IS NULL AND r.g IS NULL) OR l.id = 5 ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE coalesce(r.k, 3) IN (SELECT g FROM fu_third) ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE NOT EXISTS (SELECT FROM fu_free f WHERE f.g = coalesce(l.id, r.k)) ORDER BY 1, 2;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE false;
SELECT l, r FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY l.id, r.k;
SELECT l.id, r FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE r IS NULL OR l.id IS NULL ORDER BY 1, r.k;
SELECT j FROM (fu_left l FULL JOIN fu_right r ON l.v = r.g) AS j ORDER BY j.id, j.k LIMIT 9;
SELECT l.tableoid::regclass, r.tableoid::regclass, count(*) FROM fu_left l FULL JOIN fu_right r ON l.v = r.g GROUP BY 1, 2 ORDER BY 1, 2;
-- merged columns
SELECT t, count(*), max(id), max(k) FROM fu_left FULL JOIN fu_third USING (t) GROUP BY t ORDER BY t;
SELECT * FROM fu_left FULL JOIN fu_right USING (w) ORDER BY id, k;
SELECT g, a.k, b.k FROM fu_free a FULL JOIN fu_right b USING (g) ORDER BY 1, 2, 3;
SELECT * FROM fu_free NATURAL FULL JOIN fu_range ORDER BY 1, 2, 3;
SELECT k, g, x.t, y.t FROM fu_free x FULL JOIN fu_range y USING (k, g) ORDER BY 1, 2, 3, 4;
-- of three and more
SELECT l.id, r.k, x.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g FULL JOIN fu_third x ON r.k = x.g ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k FULL JOIN fu_third x ON l.w = x.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k FULL JOIN fu_third x ON coalesce(l.v, r.k) = x.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l FULL JOIN (fu_right r FULL JOIN fu_third x ON r.g = x.g) ON l.v = x.k ORDER BY 1, 2, 3;
SELECT t, count(*) FROM fu_left FULL JOIN fu_third USING (t) FULL JOIN fu_free USING (t) GROUP BY t ORDER BY t;
SELECT l.id, r.k, x.k FROM (fu_left l JOIN fu_right r ON l.id = r.k) FULL JOIN fu_third x ON l.v = x.g ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM (fu_left l JOIN fu_right r ON l.v = r.g) FULL JOIN fu_third x ON l.w = x.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM (fu_left l LEFT JOIN fu_right r ON l.v = r.k) FULL JOIN fu_third x ON r.g = x.g ORDER BY 1, 2, 3;
SELECT count(*), count(l.id), count(a.k), count(b.k) FROM (fu_left l LEFT JOIN fu_free a ON l.v = a.g) FULL JOIN (fu_right r JOIN fu_range b ON r.g = b.g) ON l.t = b.t;
SELECT l.id, x.id, r.k FROM (fu_left l FULL JOIN fu_left x ON l.id = x.v) FULL JOIN fu_right r ON r.g = x.v ORDER BY 1, 2, 3;
SELECT f.k, l.id, r.k FROM fu_free f JOIN (fu_left l FULL JOIN fu_right r ON l.v = r.k) ON f.k = r.g ORDER BY 1, 2, 3;
SELECT f.k, l.id, r.k FROM fu_free f JOIN (fu_left l FULL JOIN fu_right r ON l.v = r.k) ON f.k = coalesce(l.id, r.k) ORDER BY 1, 2, 3;
SELECT f.k, l.id, r.k FROM fu_free f LEFT JOIN (fu_left l FULL JOIN fu_right r ON l.v = r.k) ON f.g = coalesce(l.id, r.k) ORDER BY 1, 2, 3;
SELECT f.k, l.id, r.k FROM fu_free f RIGHT JOIN (fu_left l FULL JOIN fu_right r ON l.v = r.g) ON f.g = coalesce(l.id, r.k) ORDER BY 1, 2, 3;
SELECT f.k, l.id, r.k FROM fu_free f LEFT JOIN (fu_left l FULL JOIN fu_right r ON l.v = r.k) ON f.g = coalesce(l.id, r.k) AND coalesce(r.g, 0) = 0 AND (l.id IS NULL OR r.k IS NULL) ORDER BY 1, 2, 3;
SELECT count(*), count(c.k) FROM (fu_left l FULL JOIN fu_right r ON l.v = r.k) CROSS JOIN (fu_few c FULL JOIN fu_free f ON c.id = f.g) x (k) WHERE c.k < 3;
SELECT count(*) FROM (fu_left l FULL JOIN fu_right r ON l.v = r.k), (fu_third x FULL JOIN fu_free f ON x.g = f.g) WHERE r.g = f.k;
-- in subqueries, beside others, for each row of others
SELECT s.a, s.b FROM (SELECT l.id AS a, r.k AS b FROM fu_left l FULL JOIN fu_right r ON l.v = r.g) s JOIN fu_third x ON x.k = s.b ORDER BY 1, 2;
SELECT s.g, s.n, x.t FROM (SELECT r.g, count(*) AS n FROM fu_left l FULL JOIN fu_right r ON l.v = r.k GROUP BY 1) s FULL JOIN fu_third x ON x.k = s.n ORDER BY 1, 2, 3;
SELECT count(*) FROM fu_third x WHERE x.k IN (SELECT coalesce(l.id, r.k) FROM fu_left l FULL JOIN fu_right r ON l.v = r.g);
SELECT x.k, (SELECT count(*) FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE r.k = x.k) FROM fu_third x ORDER BY 1;
SELECT x.k, EXISTS (SELECT FROM fu_left l FULL JOIN fu_right r ON l.v = r.g WHERE coalesce(r.k, l.id) = x.k) FROM fu_third x ORDER BY 1;
SELECT l.id, r.k, s.m FROM fu_left l FULL JOIN fu_right r ON l.v = r.g CROSS JOIN LATERAL (SELECT max(x.k) AS m FROM fu_third x WHERE x.g = r.g) s ORDER BY 1, 2;
SELECT l.id, r.k, s FROM fu_left l FULL JOIN fu_right r ON l.v = r.g, LATERAL (SELECT coalesce(l.id, 0) + coalesce(r.k, 0)) s ORDER BY 1, 2;
SELECT x.k, s.* FROM fu_third x, LATERAL (SELECT l.id, r.k FROM (SELECT * FROM fu_left WHERE v = x.g) l FULL JOIN (SELECT * FROM fu_right WHERE k = x.g) r ON l.v = r.k) s (a, b) ORDER BY 1, 2, 3;
WITH w AS MATERIALIZED (SELECT v, count(*) AS n FROM fu_left GROUP BY v) SELECT w.v, w.n, r.k FROM w FULL JOIN fu_right r ON w.v = r.g ORDER BY 1, 2, 3;
WITH w AS (SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g) SELECT a.id, b.k FROM w a JOIN w b ON a.id = b.k ORDER BY 1, 2;
SELECT l.id AS a FROM fu_left l FULL JOIN fu_right r ON l.v = r.k UNION SELECT r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g ORDER BY 1;
SELECT a.v, a.n, b.k FROM (SELECT v, count(*) AS n FROM fu_left GROUP BY v) a FULL JOIN fu_right b ON a.v = b.g ORDER BY 1, 2, 3;
SELECT a.v, b.t FROM (SELECT DISTINCT v FROM fu_left) a FULL JOIN (SELECT k, max(t) AS t FROM fu_third GROUP BY k LIMIT 1000) b ON a.v = b.k ORDER BY 1, 2;
-- joins on the nullable side
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r JOIN fu_third x ON r.g = x.k) ON l.id = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r JOIN fu_third x ON r.k = x.g) ON l.id = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r LEFT JOIN fu_third x ON r.k = x.g) ON l.id = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r LEFT JOIN fu_third x ON r.g = x.g AND x.k < 9) ON l.v = r.w ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r LEFT JOIN fu_third x ON r.k = x.g) ON l.id = r.k AND x.t IS NULL AND r.g > 1 ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k, coalesce(x.t, 'none') FROM fu_left l LEFT JOIN (fu_right r LEFT JOIN fu_third x ON r.k = x.g) ON l.id = r.k WHERE coalesce(x.t, 'none') = 'none' ORDER BY 1, 2, 3;
SELECT l.id, s.* FROM fu_left l LEFT JOIN (SELECT r.k, x.k AS y, coalesce(x.g, 77) AS z, 5 AS five FROM fu_right r LEFT JOIN fu_third x ON r.k = x.g) s ON l.id = s.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, x.k, f.k FROM fu_left l LEFT JOIN (fu_right r LEFT JOIN (fu_third x JOIN fu_free f ON x.g = f.k) ON r.g = x.k) ON l.id = r.k ORDER BY 1, 2, 3, 4;
SELECT l.id, r.k, x.k FROM fu_left l LEFT JOIN (fu_right r FULL JOIN fu_third x ON r.k = x.g) ON l.id = coalesce(r.k, x.k) ORDER BY 1, 2, 3;
SELECT l.g, count(*), count(r.k), count(x.k) FROM fu_range l LEFT JOIN (fu_right r RIGHT JOIN fu_third x ON r.k = x.g) ON l.k = r.k GROUP BY 1 ORDER BY 1;
SELECT l.id, r, x.k FROM fu_left l LEFT JOIN (fu_right r JOIN fu_third x ON r.k = x.g) ON l.id = r.k WHERE l.id < 9 ORDER BY 1, 3;
SELECT l.id, s.n FROM fu_left l LEFT JOIN (fu_right r JOIN fu_third x ON r.k = x.g) ON l.id = r.k, LATERAL (SELECT count(*) AS n FROM fu_free f WHERE f.k = x.g) s ORDER BY 1, 2;
-- prepared, and through cursors
PREPARE fu (int, text) AS SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g AND l.id > $1 WHERE coalesce(r.t, $2) = $2 ORDER BY 1, 2;
EXECUTE fu (10, 't3');
EXECUTE fu (NULL, 't5');
DEALLOCATE fu;
BEGIN;
DECLARE fu SCROLL CURSOR FOR SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY 1, 2;
FETCH 4 FROM fu;
FETCH LAST FROM fu;
FETCH BACKWARD 3 FROM fu;
UPDATE fu_left SET v = v + 1 WHERE id < 20;
SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.k ORDER BY 1, 2;
FETCH ABSOLUTE 2 FROM fu;
INSERT INTO fu_free SELECT l.id, r.k FROM fu_left l FULL JOIN fu_right r ON l.v = r.g;
UPDATE fu_right SET g = s.n FROM (SELECT r.k, count(*) AS n FROM fu_left l FULL JOIN fu_right r ON l.v = r.g GROUP BY 1) s WHERE s.k = fu_right.k;
DELETE FROM fu_free WHERE k IN (SELECT l.id FROM fu_left l FULL JOIN fu_right r ON l.v = r.k WHERE r.k IS NULL);
SELECT * FROM fu_free ORDER BY 1, 2, 3;
SELECT * FROM fu_right ORDER BY 1;
SELECT l.id FROM fu_left l FULL JOIN fu_right r ON l.v = r.k FOR UPDATE;
ROLLBACK;
-- again: ANALYZE fu_left, fu_right, fu_third, fu_free, fu_range, fu_empty, fu_few, fu_local
-- again: SET shard_ext.join_strategy = broadcast
-- again: SET shard_ext.join_strategy = pull
-- again: SET shard_ext.join_strategy = repartition
RESET shard_ext.join_strategy;
DROP TABLE fu_left, fu_right, fu_third, fu_free, fu_range, fu_empty, fu_few, fu_local;
