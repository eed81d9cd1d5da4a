-- joins without keys, expressions, semi-joins and outer joins, whose rows go to shards where they can
SET shard_ext.join_strategy = repartition;
CREATE TABLE mo_left (id int PRIMARY KEY, v int, w bigint, t text, d date, n numeric);
CREATE TABLE mo_right (k int PRIMARY KEY, g int, t text, w bigint);
CREATE TABLE mo_third (k bigint PRIMARY KEY, g int, t text);
CREATE TABLE mo_text (k text PRIMARY KEY, g int, id int);
CREATE TABLE mo_free (k int, g int, t text);
CREATE TABLE mo_range (k int, g int, t text);
CREATE TABLE mo_few (id int PRIMARY KEY, t text);
CREATE TABLE mo_local (id int PRIMARY KEY, t text);
-- only: distributed
SELECT create_distributed_table('mo_left', 'id');
-- only: distributed
SELECT create_distributed_table('mo_right', 'k');
-- only: distributed
SELECT create_distributed_table('mo_third', 'k', shard_count => 5);
-- only: distributed
SELECT create_distributed_table('mo_text', 'k', shard_count => 3);
-- only: distributed
SELECT create_distributed_table('mo_free', 'k', shard_count => 2);
-- only: distributed
SELECT create_distributed_table('mo_range', 'k', 'range');
-- only: distributed
SELECT shard_ext.add_range_shard('mo_range', '0', '10');
-- only: distributed
SELECT shard_ext.add_range_shard('mo_range', '10', '40');
-- only: distributed
SELECT create_reference_table('mo_few');
INSERT INTO mo_left SELECT i, CASE WHEN i % 5 = 0 THEN NULL ELSE i % 60 END, CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 5000000000 + i ELSE i % 45 END, CASE WHEN i % 6 = 0 THEN NULL ELSE 't' || i % 25 END, date '2024-01-01' + i % 10, i % 12 FROM generate_series(1, 150) i;
INSERT INTO mo_right SELECT i, nullif(i % 8, 3), 't' || i % 11, CASE WHEN i % 4 = 0 THEN NULL ELSE i * 2 END FROM generate_series(0, 50) i;
INSERT INTO mo_third SELECT CASE WHEN i < 40 THEN i ELSE 5000000000 + i END, i % 6, 't' || i % 13 FROM generate_series(0, 80) i;
INSERT INTO mo_text SELECT 't' || i, nullif(i % 9, 4), i * 3 FROM generate_series(0, 30) i;
INSERT INTO mo_free SELECT nullif(i % 20, 7), nullif(i % 6, 2), nullif('t' || i % 9, 't4') FROM generate_series(0, 60) i;
INSERT INTO mo_range SELECT i % 40, i % 5, 't' || i % 7 FROM generate_series(0, 60) i;
INSERT INTO mo_few SELECT i, 't' || i FROM generate_series(0, 12) i;
INSERT INTO mo_local SELECT i, 't' || i FROM generate_series(0, 12) i;
-- the kept side moves, with what matches nothing; the other side moves
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k, l.t FROM mo_left l RIGHT JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_right r LEFT JOIN mo_left l ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_right r RIGHT JOIN mo_left l ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_third r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_third r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_right r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_right r ON l.w = r.k WHERE l.w = 5000000008 ORDER BY 1, 2;
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_right r ON l.w = r.k WHERE l.w IS NULL ORDER BY 1, 2;
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_range r ON l.w = r.k WHERE l.w > 42 ORDER BY 1, 2, 3;
SELECT l.id, r.k, r.g FROM mo_left l LEFT JOIN mo_range r ON l.v = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, r.g FROM mo_left l FULL JOIN mo_range r ON l.v = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_text r ON l.t = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k AND r.g > 2 AND l.id % 3 = 0 ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k AND r.t <> l.t ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k WHERE r.k IS NULL ORDER BY 1;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k WHERE r.g = 2 OR l.id < 20 ORDER BY 1, 2;
SELECT l.v, count(*), count(r.k), sum(r.g) FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT r.k, count(*), count(l.id) FROM mo_left l FULL JOIN mo_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT DISTINCT l.v, r.g FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, row_number() OVER (PARTITION BY l.v ORDER BY l.id, r.k) FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT * FROM mo_left LEFT JOIN mo_right USING (t) ORDER BY id, k;
SELECT t, count(*), max(id), max(k) FROM mo_left FULL JOIN mo_right USING (t) GROUP BY t ORDER BY t;
SELECT j.*, j FROM (mo_left l LEFT JOIN mo_right r ON l.v = r.k) AS j ORDER BY j.id, j.k LIMIT 5;
SELECT l, r FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k ORDER BY l.id LIMIT 5;
-- neither side is joined by its key
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.v = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_right r ON l.v = r.g ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.t = r.t ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.t = r.t ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l RIGHT JOIN mo_right r USING (t) ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.w = r.w ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_right r ON l.v = r.w ORDER BY 1, 2;
SELECT l.id, f.k, f.g FROM mo_left l JOIN mo_free f ON l.t = f.t AND l.v > f.g ORDER BY 1, 2, 3;
SELECT f.k, f.g, r.k FROM mo_free f LEFT JOIN mo_right r ON f.g = r.g AND r.k < 10 ORDER BY 1, 2, 3;
SELECT a.k, a.g, b.k FROM mo_range a JOIN mo_range b ON a.g = b.g WHERE a.k < 5 ORDER BY 1, 2, 3;
SELECT l.t, count(*), count(DISTINCT r.k) FROM mo_left l JOIN mo_right r ON l.t = r.t GROUP BY 1 ORDER BY 1;
SELECT l.d, count(*) FROM mo_left l JOIN mo_left m ON l.d = m.d AND l.id <> m.id GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM mo_left l JOIN mo_left m ON l.n = m.n WHERE l.t = 't3';
SELECT count(*) FROM mo_left l JOIN mo_right r ON l.t = r.t WHERE l.t = 't3' OR r.t = 't4';
-- expressions
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.v + 1 = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON r.k = l.w::int WHERE l.w < 100 ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_third r ON r.k = l.v::bigint ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_text r ON upper(l.t) = upper(r.k) ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_text r ON lower(upper(l.t)) = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON coalesce(l.v, 7) = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v % 9 = r.g + 1 ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_right r ON l.v % 9 = r.g + 1 ORDER BY 1, 2;
SELECT l.id, l.v + 1, r.k FROM mo_left l JOIN mo_right r ON l.v + 1 = r.k WHERE l.v + 1 < 20 ORDER BY 1, 2;
SELECT l.v + 1, count(*) FROM mo_left l JOIN mo_right r ON l.v + 1 = r.k GROUP BY 1 ORDER BY 1;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.t || '' = r.t::varchar ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.v * 1.0 = r.k ORDER BY 1, 2;
SELECT count(*) FROM mo_left l JOIN mo_right r ON l.v + (random() * 0)::int = r.k;
-- semi-joins and anti-joins
SELECT id FROM mo_left WHERE v IN (SELECT k FROM mo_right WHERE g > 1) ORDER BY 1;
SELECT id FROM mo_left WHERE id IN (SELECT g FROM mo_right) ORDER BY 1;
SELECT id FROM mo_left WHERE id IN (SELECT g * 3 FROM mo_right WHERE t < 't4') ORDER BY 1;
SELECT id FROM mo_left WHERE v IN (SELECT g FROM mo_right) ORDER BY 1;
SELECT id FROM mo_left WHERE v IN (SELECT max(g) + 2 FROM mo_right GROUP BY t) ORDER BY 1;
SELECT id FROM mo_left WHERE id IN (SELECT k FROM mo_third ORDER BY g, k LIMIT 9) ORDER BY 1;
SELECT id FROM mo_left WHERE id IN (SELECT g FROM mo_right UNION SELECT k::int FROM mo_third WHERE g = 2 AND k < 100) ORDER BY 1;
SELECT id FROM mo_left WHERE v NOT IN (SELECT k FROM mo_right WHERE g > 1) ORDER BY 1;
SELECT id FROM mo_left WHERE id NOT IN (SELECT g FROM mo_right) ORDER BY 1;
SELECT id FROM mo_left WHERE (v, t) IN (SELECT k, t FROM mo_right) ORDER BY 1;
SELECT id FROM mo_left l WHERE EXISTS (SELECT FROM mo_right r WHERE r.g = l.id AND r.k > 5) ORDER BY 1;
SELECT id FROM mo_left l WHERE EXISTS (SELECT * FROM mo_right r WHERE r.k = l.v) ORDER BY 1;
SELECT id FROM mo_left l WHERE NOT EXISTS (SELECT FROM mo_right r WHERE r.k = l.v) ORDER BY 1;
SELECT id FROM mo_left l WHERE NOT EXISTS (SELECT FROM mo_right r WHERE r.g = l.v AND r.t > l.t) ORDER BY 1;
SELECT id FROM mo_left l WHERE NOT EXISTS (SELECT FROM mo_right r WHERE r.g = l.id) ORDER BY 1;
SELECT id FROM mo_left l WHERE l.id % 7 = 0 OR EXISTS (SELECT FROM mo_right r WHERE r.g = l.v) ORDER BY 1;
SELECT id FROM mo_left l WHERE EXISTS (SELECT FROM mo_right r WHERE r.g + 1 = l.id AND r.t IS NOT NULL) ORDER BY 1;
SELECT id FROM mo_left l WHERE EXISTS (SELECT FROM mo_right r JOIN mo_third t ON t.k = r.g WHERE r.g = l.id) ORDER BY 1;
SELECT id FROM mo_left l WHERE EXISTS (SELECT FROM mo_right r WHERE r.g = l.id) AND NOT EXISTS (SELECT FROM mo_third t WHERE t.g = l.id) ORDER BY 1;
SELECT id FROM mo_left l WHERE l.n > (SELECT count(*) FROM mo_right r WHERE r.g = l.id) ORDER BY 1;
SELECT l.id, r.k FROM mo_left l JOIN mo_right r ON l.v = r.k WHERE EXISTS (SELECT FROM mo_third t WHERE t.g = r.k) ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k WHERE NOT EXISTS (SELECT FROM mo_third t WHERE t.g = l.v) ORDER BY 1, 2;
SELECT g, count(*) FROM mo_right r WHERE EXISTS (SELECT FROM mo_left l WHERE l.v = r.k) GROUP BY g ORDER BY 1;
-- several tables
SELECT l.id, r.k, t.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k LEFT JOIN mo_third t ON l.w = t.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, t.g FROM mo_left l LEFT JOIN mo_right r ON r.g = l.id LEFT JOIN mo_third t ON t.g = l.id ORDER BY 1, 2, 3;
SELECT l.id, r.k, t.k FROM mo_left l LEFT JOIN (mo_right r JOIN mo_third t ON r.g = t.k) ON l.v = r.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, t.k FROM mo_left l LEFT JOIN (mo_right r LEFT JOIN mo_third t ON r.g = t.k) ON l.v = t.k ORDER BY 1, 2, 3;
SELECT l.id, r.k, t.k FROM mo_left l FULL JOIN mo_right r ON l.v = r.k FULL JOIN mo_third t ON t.k = r.g ORDER BY 1, 2, 3;
SELECT l.id, r.k, t.k, x.id FROM mo_left l JOIN mo_right r ON l.t = r.t JOIN mo_text t ON r.t = t.k LEFT JOIN mo_left x ON x.id = t.id ORDER BY 1, 2, 3, 4;
SELECT count(*), sum(l.id), count(t.k), count(x.g) FROM mo_left l JOIN mo_right r ON l.v = r.k JOIN mo_third t ON t.k = r.g JOIN mo_free x ON x.g = t.g;
SELECT l.id, r.k, f.id FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k LEFT JOIN mo_few f ON f.id = r.g ORDER BY 1, 2, 3;
SELECT l.id, r.k, f.id FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k LEFT JOIN mo_local f ON f.id = r.g ORDER BY 1, 2, 3;
SELECT l.id, r.k, f.id FROM mo_local f LEFT JOIN (mo_left l LEFT JOIN mo_right r ON l.v = r.k) ON f.id = l.n ORDER BY 1, 2, 3;
SELECT l.id, r.k, f.id FROM mo_few f LEFT JOIN (mo_left l JOIN mo_right r ON l.v = r.k) ON f.id = l.n ORDER BY 1, 2, 3;
SELECT l.id, f.id FROM mo_left l LEFT JOIN mo_local f ON f.id = l.v ORDER BY 1, 2;
SELECT l.id, q.k, q.m FROM mo_left l LEFT JOIN (SELECT g AS k, max(t) AS m FROM mo_right GROUP BY g) q ON q.k = l.v ORDER BY 1, 2;
SELECT l.id, q.id, q.k FROM mo_left l LEFT JOIN LATERAL (SELECT l.id, r.k FROM mo_right r WHERE r.g = l.v) q ON true ORDER BY 1, 3;
WITH w AS (SELECT id, v FROM mo_left WHERE id < 90) SELECT w.id, r.k FROM w LEFT JOIN mo_right r ON w.v = r.g ORDER BY 1, 2;
WITH w AS MATERIALIZED (SELECT id, v FROM mo_left WHERE id < 90) SELECT w.id, r.k FROM mo_right r LEFT JOIN w ON w.v = r.k ORDER BY 1, 2;
SELECT l.id, (SELECT count(*) FROM mo_right r LEFT JOIN mo_third t ON r.g = t.k WHERE t.g = l.v) FROM mo_left l ORDER BY 1;
-- within a transaction that writes
BEGIN;
UPDATE mo_left SET v = NULL WHERE id < 20;
DELETE FROM mo_right WHERE k % 10 = 1;
SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM mo_left l FULL JOIN mo_right r ON l.v = r.g ORDER BY 1, 2;
SELECT id FROM mo_left l WHERE NOT EXISTS (SELECT FROM mo_right r WHERE r.g = l.v) ORDER BY 1;
ROLLBACK;
PREPARE mo_joined (int) AS SELECT l.id, r.k FROM mo_left l LEFT JOIN mo_right r ON l.v + $1 = r.k WHERE l.id > $1 ORDER BY 1, 2;
EXECUTE mo_joined (1);
EXECUTE mo_joined (NULL);
SET plan_cache_mode = force_generic_plan;
EXECUTE mo_joined (2);
EXECUTE mo_joined (100);
DEALLOCATE mo_joined;
RESET plan_cache_mode;
-- only: distributed
SELECT count(*) FROM pg_class WHERE relname LIKE 'shard\_ext\_move%';
DROP TABLE mo_left, mo_right, mo_third, mo_text, mo_free, mo_range, mo_few, mo_local;
RESET shard_ext.join_strategy;
