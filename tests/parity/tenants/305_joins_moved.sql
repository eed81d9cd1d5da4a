-- joins on other columns than the keys, where rows of one table go to the shards of the other
SET shard_ext.join_strategy = repartition;
CREATE TABLE moved_left (id int PRIMARY KEY, v int, w bigint, s smallint, t text, n numeric, d date, u uuid, x text COLLATE "C", j jsonb, a int[], b boolean, i interval, y bytea);
CREATE TABLE moved_right (k int PRIMARY KEY, g int, t text);
CREATE TABLE moved_big (k bigint PRIMARY KEY, g int, label text);
CREATE TABLE moved_text (k text PRIMARY KEY, g int);
CREATE TABLE moved_date (k date PRIMARY KEY, g int);
CREATE TABLE moved_numeric (k numeric PRIMARY KEY, g int);
CREATE TABLE moved_uuid (k uuid PRIMARY KEY, g int);
CREATE TABLE "Moved "" Ünï" ("Kéy "" 1" int PRIMARY KEY, "shard_ext moved 0" text, "Größe" int);
-- only: distributed
SELECT create_distributed_table('moved_left', 'id');
-- only: distributed
SELECT create_distributed_table('moved_right', 'k');
-- only: distributed
SELECT create_distributed_table('moved_big', 'k');
-- only: distributed
SELECT create_distributed_table('moved_text', 'k');
-- only: distributed
SELECT create_distributed_table('moved_date', 'k', shard_count => 3);
-- only: distributed
SELECT create_distributed_table('moved_numeric', 'k');
-- only: distributed
SELECT create_distributed_table('moved_uuid', 'k');
-- only: distributed
SELECT create_distributed_table('"Moved "" Ünï"', 'Kéy " 1');
INSERT INTO moved_left SELECT i, CASE WHEN i % 5 = 0 THEN NULL ELSE i % 40 END, CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 5000000000 + i ELSE i % 30 END, i % 20, CASE WHEN i % 6 = 0 THEN NULL ELSE 't' || i % 25 END, (i % 12) * 1.50, date '2024-01-01' + i % 10, ('00000000-0000-0000-0000-0000000000' || lpad((i % 15)::text, 2, '0'))::uuid, E'tab\t''"\\' || i % 9, jsonb_build_object('i', i), ARRAY[i, NULL, i % 3], i % 2 = 0, make_interval(days => i % 4, secs => 0.5), decode(lpad(to_hex(i), 6, '0'), 'hex') FROM generate_series(1, 200) i;
INSERT INTO moved_right SELECT i, i % 8, 't' || i % 11 FROM generate_series(0, 50) i;
INSERT INTO moved_big SELECT CASE WHEN i < 40 THEN i ELSE 5000000000 + i END, i % 6, 'big ' || i FROM generate_series(0, 80) i;
INSERT INTO moved_text SELECT 't' || i, i FROM generate_series(0, 30) i;
INSERT INTO moved_date SELECT date '2024-01-01' + i, i FROM generate_series(0, 20) i;
INSERT INTO moved_numeric SELECT i * 1.5, i FROM generate_series(0, 20) i;
INSERT INTO moved_uuid SELECT ('00000000-0000-0000-0000-0000000000' || lpad(i::text, 2, '0'))::uuid, i FROM generate_series(0, 20) i;
INSERT INTO "Moved "" Ünï" SELECT i, 'ü"''' || i, i % 7 FROM generate_series(0, 30) i;
-- types of the column, and of what comes with it
SELECT l.id, r.k, l.t, r.t FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.*, r.g FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE r.g = 3 ORDER BY l.id;
SELECT l.id, r.k FROM moved_left l JOIN moved_right r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_big r ON l.w = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_big r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_big r ON l.s = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_text r ON l.t = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_text r ON l.t COLLATE "C" = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_date r ON l.d = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_numeric r ON l.n = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_uuid r ON l.u = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l JOIN moved_numeric r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r."shard_ext moved 0", r."Größe" FROM moved_left l JOIN "Moved "" Ünï" r ON l.v = r."Kéy "" 1" ORDER BY 1, 2;
SELECT r.k, "l ""1".* FROM "Moved "" Ünï" AS "l ""1" JOIN moved_right r ON r.k = "l ""1"."Größe" ORDER BY r.k, "l ""1"."Kéy "" 1";
SELECT l, r.k FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY l.id LIMIT 3;
-- aggregates above, and what comes after them
SELECT count(*), sum(l.n), avg(l.v), min(r.t), array_agg(l.id ORDER BY l.id) FROM moved_left l JOIN moved_right r ON l.v = r.k;
SELECT r.g, count(*), sum(l.n), count(DISTINCT l.t) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY r.g HAVING count(*) > 3 ORDER BY 1;
SELECT r.k, count(*), string_agg(l.t, ',' ORDER BY l.id) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY r.k ORDER BY 1;
SELECT l.v, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY ROLLUP (l.v) ORDER BY 1;
SELECT DISTINCT r.g, l.s FROM moved_left l JOIN moved_right r USING (t) ORDER BY 1, 2;
SELECT l.id, row_number() OVER (PARTITION BY r.k ORDER BY l.id) FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY 1;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY r.t DESC, l.id LIMIT 5 OFFSET 2;
-- several tables
SELECT count(*), sum(b.g) FROM moved_left l JOIN moved_right r ON l.v = r.k JOIN moved_big b ON r.g = b.k;
SELECT l.id, r.g, b.label FROM moved_left l JOIN moved_right r ON l.v = r.k JOIN moved_big b ON l.w = b.k WHERE l.id < 90 ORDER BY 1, 2, 3;
SELECT count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k JOIN moved_text t ON l.t = t.k JOIN moved_date d ON d.k = l.d WHERE d.g + t.g > 3;
SELECT count(*) FROM moved_left l, moved_right r, moved_left m WHERE l.v = r.k AND m.w = r.g AND l.id > m.id;
SELECT x.id, y.id FROM moved_left x JOIN moved_left y ON x.v = y.id AND y.b ORDER BY 1, 2;
SELECT x.v, count(*) FROM (SELECT v, max(id) AS m FROM moved_left GROUP BY v) x JOIN moved_left y ON x.m = y.id GROUP BY 1 ORDER BY 1;
-- subqueries, WITH queries, set operations, outer joins around
WITH w AS (SELECT l.id, r.g FROM moved_left l JOIN moved_right r ON l.v = r.k) SELECT g, count(*), (SELECT max(id) FROM w) FROM w GROUP BY g ORDER BY g;
WITH w AS MATERIALIZED (SELECT v, count(*) AS c FROM moved_left GROUP BY v) SELECT r.k, w.c FROM w JOIN moved_right r ON w.v = r.k ORDER BY 1;
SELECT r.k, (SELECT count(*) FROM moved_left l JOIN moved_big b ON l.w = b.k WHERE b.g = r.g) FROM moved_right r WHERE r.k < 6 ORDER BY 1;
SELECT r.k, q.n FROM moved_right r, LATERAL (SELECT count(*) AS n FROM moved_left l JOIN moved_big b ON l.w = b.k WHERE l.s = r.k) q WHERE r.k < 8 ORDER BY 1;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE EXISTS (SELECT FROM moved_big b WHERE b.k = r.k AND b.g > 2) ORDER BY 1;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k UNION SELECT b.g FROM moved_big b JOIN moved_right r ON b.g = r.k ORDER BY 1;
SELECT q.id, b.label FROM (SELECT l.id, r.g FROM moved_left l JOIN moved_right r ON l.v = r.k) q LEFT JOIN moved_big b ON b.k = q.g AND b.g > 1 ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l LEFT JOIN moved_right r ON l.v = r.k ORDER BY 1, 2;
SELECT l.id, r.k FROM moved_left l FULL JOIN moved_right r ON l.v = r.k ORDER BY 1, 2;
SELECT count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.t IN (SELECT t.k FROM moved_text t WHERE t.g > 4);
SELECT count(*), sum(random()) >= 0 FROM moved_left l JOIN moved_right r ON l.v = r.k;
-- nothing to move, and nothing to meet
SELECT count(*), max(r.t) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.id < 0;
SELECT count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.v IS NULL;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE r.k = 7 ORDER BY 1;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.id = 7 ORDER BY 1;
-- own changes, savepoints, and their end
BEGIN;
UPDATE moved_left SET v = 1000 WHERE id < 50;
INSERT INTO moved_right VALUES (1000, 1, 'new');
SELECT count(*), sum(l.id) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE r.k = 1000;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SAVEPOINT s;
DELETE FROM moved_right WHERE k = 1000;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT 1 / (count(*) - count(*)) FROM moved_left l JOIN moved_right r ON l.v = r.k;
ROLLBACK TO s;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
RELEASE s;
COMMIT;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
BEGIN READ ONLY;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
UPDATE moved_left SET v = 1;
ROLLBACK;
BEGIN READ ONLY;
INSERT INTO moved_right VALUES (5000, 1, 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT k FROM moved_right WHERE k = 1 FOR UPDATE;
ROLLBACK;
BEGIN READ ONLY;
TRUNCATE moved_right;
ROLLBACK;
BEGIN READ ONLY;
WITH d AS (DELETE FROM moved_right RETURNING k) SELECT count(*) FROM d;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT r.g, count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k GROUP BY 1 ORDER BY 1;
SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY 1 LIMIT 3;
COMMIT;
-- prepared
PREPARE moved_joined (int, text) AS SELECT r.g, count(*), max($2 || l.t) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.id > $1 GROUP BY 1 ORDER BY 1;
EXECUTE moved_joined (10, 'a');
EXECUTE moved_joined (100, 'b');
SET plan_cache_mode = force_generic_plan;
EXECUTE moved_joined (150, 'c');
BEGIN;
EXECUTE moved_joined (10, 'a');
EXECUTE moved_joined (NULL, 'a');
COMMIT;
EXECUTE moved_joined (10, NULL);
DEALLOCATE moved_joined;
RESET plan_cache_mode;
-- cursors that are read in turn, and not to their end
BEGIN;
DECLARE one CURSOR FOR SELECT l.id, r.k FROM moved_left l JOIN moved_right r ON l.v = r.k ORDER BY 1, 2;
DECLARE two SCROLL CURSOR FOR SELECT l.id, b.k FROM moved_left l JOIN moved_big b ON l.w = b.k ORDER BY 1, 2;
FETCH 3 FROM one;
FETCH 3 FROM two;
UPDATE moved_right SET g = g + 1 WHERE k = 3;
FETCH 3 FROM one;
FETCH BACKWARD 2 FROM two;
CLOSE one;
FETCH 3 FROM two;
COMMIT;
-- in functions, and many in one transaction
CREATE FUNCTION moved_count(least int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE c bigint := 0; x record; BEGIN FOR x IN SELECT l.id FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.id > least ORDER BY 1 LOOP c := c + x.id; EXIT WHEN c > 1000; END LOOP; BEGIN PERFORM 1 / (count(*) - count(*)) FROM moved_left l JOIN moved_right r ON l.v = r.k; EXCEPTION WHEN division_by_zero THEN c := c + 1; END; RETURN c; END $$;
SELECT moved_count(0), moved_count(100), moved_count(500);
SELECT r.k, moved_count(r.k) FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE r.k < 4 ORDER BY 1 LIMIT 4;
-- changes that read a join
WITH gone AS (DELETE FROM moved_big WHERE k < 5 RETURNING k) SELECT count(*), (SELECT count(*) FROM moved_left l JOIN moved_right r ON l.v = r.k) FROM gone;
INSERT INTO moved_numeric SELECT 1000 + l.id, r.g FROM moved_left l JOIN moved_right r ON l.v = r.k WHERE l.id % 9 = 0;
SELECT count(*), sum(k) FROM moved_numeric;
-- nothing is left behind
-- only: distributed
SELECT count(*) FROM pg_class WHERE relname LIKE 'shard_ext_move%';
DROP FUNCTION moved_count;
DROP TABLE moved_left, moved_right, moved_big, moved_text, moved_date, moved_numeric, moved_uuid, "Moved "" Ünï";
RESET shard_ext.join_strategy;
