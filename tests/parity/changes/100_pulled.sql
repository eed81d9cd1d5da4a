-- UPDATE and DELETE by what tables say that are not colocated, by local tables, subqueries, and functions of here.
UPDATE a SET v = c.v + 10 FROM c WHERE c.k = a.k AND c.id <= 30;
UPDATE a SET v = c.v + 10, t = a.t || c.t FROM c WHERE c.id = a.k RETURNING a.k, a.v, a.t, c.id, c.t;
UPDATE a SET t = loc.t FROM loc WHERE loc.id = a.k AND loc.v < 3 RETURNING *;
UPDATE a SET t = loc.t FROM loc LEFT JOIN c ON c.id = loc.id + 20 WHERE loc.id = a.k RETURNING a.k, a.t, c.t;
UPDATE a AS x SET n = y.n + 1 FROM a AS y WHERE y.k = x.k + 1 RETURNING x.k, x.n, y.n;
UPDATE a SET v = 100 WHERE k IN (SELECT k FROM c WHERE v = 2) RETURNING k, v;
UPDATE a SET v = (SELECT max(c.v) FROM c WHERE c.k = a.k) RETURNING k, v;
UPDATE a SET v = (SELECT count(*) FROM c) WHERE k < 5 RETURNING k, v;
UPDATE a SET t = 'n' WHERE NOT EXISTS (SELECT FROM loc WHERE loc.id = a.k) RETURNING k;
UPDATE a SET u = gen_random_uuid() RETURNING k, u IS NOT NULL;
SELECT count(*), count(DISTINCT u) FROM a;
UPDATE a SET u = NULL;
UPDATE a SET v = plus_one(k) WHERE k % 2 = 0 RETURNING k, v;
UPDATE a SET v = plus_one(v) WHERE plus_one(k) % 3 = 0 RETURNING k, v, plus_one(v);
UPDATE a SET v = stable_ten() WHERE k < stable_ten() RETURNING k, v;
UPDATE b SET v = nextval('numbers') WHERE k = 3;
SELECT count(DISTINCT v) FROM b WHERE k = 3;
UPDATE a SET (v, t) = (SELECT c.v, c.t FROM c WHERE c.id = a.k) RETURNING k, v, t;
UPDATE a SET (v, t) = (SELECT max(v), min(t) FROM c), n = 3 WHERE k BETWEEN 3 AND 9 RETURNING k, v, t, n;
UPDATE a SET (t, v) = (SELECT c.t, c.v::text::int FROM c WHERE c.k = a.k ORDER BY c.id DESC LIMIT 1) WHERE k < 20 RETURNING *;
UPDATE a SET (v, t) = (SELECT c.v, c.t FROM c WHERE c.k = a.k) WHERE k = 3;
UPDATE a SET (v, t) = (1, DEFAULT), n = DEFAULT WHERE k IN (SELECT id FROM loc WHERE v = 1) RETURNING k, v, t, n;
UPDATE a SET v = 3 FROM generate_series(1, 5) g WHERE g = a.k RETURNING a.k, g;
UPDATE a SET t = s.x FROM (VALUES (1, 'one'), (2, 'two'), (2, 'two'), (99, 'none')) s(i, x) WHERE s.i = a.k RETURNING a.k, a.t;
UPDATE a SET v = (SELECT v FROM c WHERE c.k = a.k) WHERE k < 30;
UPDATE a SET v = v / (k - 3) FROM loc WHERE loc.id = a.k;
UPDATE a SET n = 12345678901.5 FROM loc WHERE loc.id = a.k;
UPDATE a SET k = NULL FROM loc WHERE loc.id = a.k AND a.k = 7;
UPDATE a SET v = 4 FROM c WHERE c.id = a.k AND a.k = 7 RETURNING a.*, c.*;
UPDATE a SET v = 5 FROM c WHERE c.id = a.k + 1 AND a.k = 7 RETURNING a, c, (SELECT max(id) FROM ref), (SELECT t FROM b WHERE b.k = a.k ORDER BY id LIMIT 1);
UPDATE b SET t = ref.name FROM ref, c WHERE ref.id = b.id AND c.id = ref.id RETURNING b.k, b.id, b.t, c.t;
UPDATE b SET t = x.t FROM (SELECT k, max(t) AS t FROM c GROUP BY k) x WHERE x.k = b.id RETURNING b.id, b.t;
WITH w AS (SELECT k, count(*) AS n FROM c GROUP BY k) UPDATE a SET v = w.n FROM w WHERE w.k = a.k RETURNING a.k, a.v, (SELECT max(n) FROM w);
WITH w AS (SELECT id FROM loc WHERE v = 2) UPDATE a SET v = 77 WHERE k IN (SELECT id FROM w) RETURNING k;
WITH RECURSIVE w(i) AS (SELECT 1 UNION ALL SELECT i + 5 FROM w WHERE i < 30) UPDATE a SET v = 78 FROM w WHERE a.k = w.i RETURNING a.k, (SELECT count(*) FROM w);
UPDATE n SET v = v + loc.v FROM loc WHERE loc.id = n.v RETURNING n.k, n.v;
UPDATE n SET d = (SELECT max(d) FROM n) WHERE k IS NULL RETURNING v, d;
UPDATE n SET v = v + 1 WHERE k = (SELECT max(k) FROM n) RETURNING k, v;
UPDATE n SET d = '2030-01-01' WHERE (k, v) IN (SELECT k, max(v) FROM n GROUP BY k) RETURNING k, v, d;
UPDATE empty SET v = 1 FROM c WHERE c.id = empty.k RETURNING *;
UPDATE a SET v = empty.v FROM empty WHERE empty.k = a.k RETURNING *;
UPDATE a SET v = 1 WHERE false AND k IN (SELECT id FROM c) RETURNING k;

DELETE FROM a USING c WHERE c.k = a.k AND c.v = 3 RETURNING a.k, c.id IS NOT NULL;
DELETE FROM b USING loc WHERE loc.id = b.id AND loc.v = 5 RETURNING b.*, loc.t;
DELETE FROM b WHERE id IN (SELECT id FROM c WHERE v = 1) RETURNING k, id, t, (SELECT count(*) FROM loc), plus_one(id);
DELETE FROM n WHERE v > (SELECT avg(v) + 20 FROM n) RETURNING k, v;
DELETE FROM n USING n AS m WHERE m.k = n.k AND m.v < n.v AND n.v < 20 RETURNING n.k, n.v, n.d;
DELETE FROM n WHERE plus_one(v) = 8 RETURNING n;
DELETE FROM c WHERE NOT EXISTS (SELECT FROM a WHERE a.k = c.id) AND id > 45 RETURNING *;
DELETE FROM empty USING c RETURNING *;

-- odd names, types of the user, generated and dropped columns
UPDATE "Odd Table" o SET "a""b" = 'x' || c.t, m = 'happy', d = d + 1 FROM c WHERE c.id = o.d RETURNING o.*;
UPDATE "Odd Table" SET p.x = p.x + 1, l[1] = 0 FROM c WHERE c.id = d RETURNING p, l, twice;
UPDATE "Odd Table" o SET "VALUE" = 'w' || c.v, late = DEFAULT, j = NULL FROM c WHERE c.id = o.d RETURNING o.*, c.id, twice + 1, o IS NULL;
UPDATE "Odd Table" o SET "VALUE" = 'much too long' FROM c WHERE c.id = o.d;
UPDATE "Odd Table" o SET d = -c.id FROM c WHERE c.id = o.d;
UPDATE "Odd Table" o SET twice = DEFAULT FROM c WHERE c.id = o.d RETURNING d, twice;
UPDATE "Odd Table" o SET seq = DEFAULT FROM c WHERE c.id = o.d AND c.id = 5 RETURNING d, seq > 40;
UPDATE "Odd Table" o SET "a""b" = 'same' FROM c WHERE c.id = o.d;
UPDATE "Odd Table" o SET p = ROW(c.id, c.t)::pair, l = ARRAY[c.v, NULL], j = json_build_object('c', c.t) FROM c WHERE c.id = o.d RETURNING p, (p).y, l, j;
DELETE FROM "Odd Table" o USING c WHERE c.id = o.d AND c.v = 2 RETURNING o.*, o, c.t;

-- through views
UPDATE a_small SET v = c.v FROM c WHERE c.id = a_small.k AND c.v < 4 RETURNING a_small.*, c.t;
UPDATE a_small SET v = c.v + 3 FROM c WHERE c.id = a_small.k;
UPDATE a_small SET v = 9 WHERE k = 8;
UPDATE a_all SET "T x" = c.t FROM c WHERE c.id = key RETURNING key, "T x", c.v;
DELETE FROM a_all USING loc WHERE loc.id = key AND loc.v = 4 RETURNING *;

-- in transactions
BEGIN;
UPDATE a SET v = c.v FROM c WHERE c.id = a.k;
SAVEPOINT one;
UPDATE a SET v = v + loc.v FROM loc WHERE loc.id = a.k RETURNING a.k, a.v;
DELETE FROM a USING c WHERE c.id = a.k + 2;
SELECT count(*), sum(v) FROM a;
ROLLBACK TO one;
SELECT count(*), sum(v) FROM a;
UPDATE a SET v = 1 / (k - 7) FROM loc WHERE loc.id = a.k;
ROLLBACK TO one;
UPDATE a SET t = 'in' FROM loc WHERE loc.id = a.k AND loc.v = 1;
UPDATE a SET t = t || '!' FROM loc WHERE loc.id = a.k AND loc.v = 1 RETURNING a.k, a.t;
COMMIT;
BEGIN;
DELETE FROM b USING c WHERE c.id = b.id;
DELETE FROM b USING c WHERE c.k = b.k;
SELECT count(*) FROM b;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE a SET v = c.v + 1 FROM c WHERE c.id = a.k;
UPDATE a SET v = a.v + c.v FROM c WHERE c.id = a.k RETURNING a.k, a.v;
COMMIT;
PREPARE change(int, text) AS UPDATE a SET v = $1, t = c.t || $2 FROM c WHERE c.id = a.k AND c.v = $1 RETURNING a.k, a.v, a.t;
EXECUTE change(1, 'x');
EXECUTE change(2, 'y');
EXECUTE change(NULL, 'y');
EXECUTE change(3, NULL);
EXECUTE change(0, 'z');
EXECUTE change(0, 'z');
EXECUTE change(1, 'z');
DEALLOCATE change;
DO $$
DECLARE r record;
BEGIN
    FOR r IN SELECT id, v FROM loc WHERE id < 6 LOOP
        UPDATE a SET v = r.v + (SELECT max(v) FROM c) WHERE k = r.id;
    END LOOP;
END $$;
SELECT k, v FROM a WHERE k < 6 ORDER BY k;
-- unordered
SELECT k, v, t, n FROM a ORDER BY k;
-- values that are too long are errors, and not cut; trailing spaces are
UPDATE lengths SET v = c.t || 'too long' FROM c WHERE c.id = lengths.k;
UPDATE lengths SET c = c.t || 'too long' FROM c WHERE c.id = lengths.k;
UPDATE lengths SET b = (repeat('1', c.k::int))::bit varying FROM c WHERE c.id = lengths.k;
UPDATE lengths SET vb = (repeat('1', 4 + c.k))::bit varying FROM c WHERE c.id = lengths.k;
UPDATE lengths SET a = ARRAY['x', c.t || 'too long'] FROM c WHERE c.id = lengths.k;
UPDATE lengths SET n = c.id * 1000 FROM c WHERE c.id = lengths.k;
UPDATE lengths SET v = 'ab      ', c = 'd          ', a = ARRAY['x      '], n = c.id / 3.0 FROM c WHERE c.id = lengths.k AND c.id < 5 RETURNING v || '|', c || '|', a, n, lengths.*;
UPDATE lengths SET v = (SELECT max(t) || 'too long' FROM c WHERE c.id = lengths.k);
UPDATE lengths SET v = (SELECT max(t)::varchar(3) FROM c WHERE c.id = lengths.k) RETURNING k, v;
UPDATE lengths SET v = c.t::varchar(2), c = c.t::char(2) FROM c WHERE c.id = lengths.k RETURNING k, v, lengths.c;
UPDATE lengths SET a = ARRAY[k::text, 'too long'] WHERE v > '';
INSERT INTO lengths (k, v) SELECT id + 100, t || 'too long' FROM c WHERE id < 4;
INSERT INTO lengths (k, c) SELECT k + 100, 'too long' FROM a WHERE k < 4;
INSERT INTO lengths (k, v, c) SELECT k + 100, 'x         ', 'y        ' FROM a WHERE k < 4 RETURNING v || '|', c || '|';
MERGE INTO lengths USING c ON c.id = lengths.k WHEN MATCHED THEN UPDATE SET v = c.t || 'too long';
MERGE INTO lengths USING c ON c.id = lengths.k + 500 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (c.id + 5000, c.t || 'too long');
-- more rows are locked, each several times, than a hash table may hold
SET work_mem = '64kB';
SET hash_mem_multiplier = 1;
SET shard_ext.join_strategy = 'pull';
INSERT INTO n SELECT 'key ' || i, i, NULL FROM generate_series(1, 6000) i;
UPDATE n SET v = n.v + 1 FROM loc WHERE n.v % 3 = loc.v % 3 AND loc.v > 0 RETURNING n.v % 2;
SELECT count(*), sum(v) FROM n;
DELETE FROM n USING loc WHERE n.v % 40 = loc.id;
SELECT count(*), sum(v) FROM n;
RESET work_mem;
RESET hash_mem_multiplier;
RESET shard_ext.join_strategy;
