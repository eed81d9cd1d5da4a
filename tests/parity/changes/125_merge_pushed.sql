-- MERGE that stays within shard groups: a, b, p, q, s and "Odd Table" are colocated, n has keys that are NULL.
MERGE INTO a USING b ON a.k = b.k AND b.id <= 20 WHEN MATCHED AND b.v = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET v = b.v + a.v, t = DEFAULT, n = a.n * 2 WHEN NOT MATCHED AND b.id % 3 = 0 THEN DO NOTHING WHEN NOT MATCHED AND b.id < 21 THEN INSERT (k, t) VALUES (b.k, b.t);
MERGE INTO b USING a ON b.k = a.k AND b.id = a.v WHEN MATCHED THEN UPDATE SET k = b.k, t = a.t || b.t WHEN NOT MATCHED AND a.v IS NOT NULL THEN INSERT VALUES (a.k, a.v, 1000 + a.k, DEFAULT);
MERGE INTO b USING (SELECT k, count(*) AS n, max(t) AS t FROM b GROUP BY k HAVING count(*) > 3) g ON g.k = b.k AND b.id < 15 WHEN MATCHED AND g.n > 4 THEN DELETE WHEN MATCHED THEN UPDATE SET t = g.t, v = g.n WHEN NOT MATCHED THEN INSERT (k, id) VALUES (g.k, 5000);
MERGE INTO a USING (SELECT b.* FROM b JOIN p USING (k) WHERE b.id < 12) x ON x.k = a.k WHEN MATCHED THEN UPDATE SET u = '00000000-0000-0000-0000-000000000001' WHEN NOT MATCHED THEN INSERT (k, v) VALUES (x.k, x.id);
MERGE INTO a USING b ON a.k = b.k AND b.id = 17 AND b.k = 17 WHEN MATCHED THEN UPDATE SET v = 99 WHEN NOT MATCHED AND b.k > 100 THEN INSERT (k) VALUES (b.k);
MERGE INTO a USING (SELECT * FROM b WHERE k = 7 AND id = 7) x ON x.k = a.k WHEN MATCHED THEN UPDATE SET t = 'seven' WHEN NOT MATCHED THEN INSERT (k, t) VALUES (x.k, 'new seven');
MERGE INTO a USING ref ON ref.id = a.k WHEN MATCHED AND ref.v = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET t = ref.name;
WITH w AS (SELECT k, id FROM b WHERE id < 9) MERGE INTO a USING w ON w.k = a.k WHEN MATCHED THEN UPDATE SET v = w.id WHEN NOT MATCHED THEN INSERT (k, v) VALUES (w.k, w.id);
MERGE INTO n USING n AS m ON m.k = n.k AND m.v = n.v WHEN MATCHED AND m.d IS NULL THEN DO NOTHING WHEN MATCHED THEN UPDATE SET d = m.d + 1 WHEN NOT MATCHED THEN INSERT VALUES (m.k, m.v + 1000, m.d);
MERGE INTO "Odd Table" o USING a ON a.k = o."Key 1" WHEN MATCHED AND o.d % 2 = 0 THEN UPDATE SET "a""b" = o."a""b" || '!"', "VALUE" = 'w', l[1] = a.v WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND a.k < 30 THEN INSERT ("Key 1", "a""b", d) OVERRIDING SYSTEM VALUE VALUES (a.k, 'from a', 4);
-- what goes wrong there
MERGE INTO a USING b ON a.k = b.k WHEN MATCHED THEN UPDATE SET v = b.v;
MERGE INTO a USING b ON a.k = b.k AND a.v < 0 WHEN NOT MATCHED THEN INSERT (k) VALUES (b.k);
MERGE INTO q USING a ON q.k = a.k AND q.id = 0 WHEN NOT MATCHED THEN INSERT (k, id) VALUES (a.k, 0);
MERGE INTO p USING a ON p.k = a.k WHEN MATCHED THEN UPDATE SET t = 1 / (a.k - 3);
MERGE INTO s USING q ON s.k = q.k + 10 AND s.k = 11 WHEN MATCHED THEN DELETE;
-- rows that would leave, and values that are made here
MERGE INTO a USING b ON a.k = b.k AND b.id = 3 WHEN MATCHED THEN UPDATE SET t = 'b' WHEN NOT MATCHED AND b.id < 5 THEN INSERT (k) VALUES (b.k + 7000 + b.id);
MERGE INTO a USING b ON a.k = b.k AND b.id = 4 WHEN MATCHED THEN UPDATE SET k = b.k WHEN NOT MATCHED AND b.id > 78 THEN INSERT (k, u) VALUES (b.id + 10000, gen_random_uuid());
UPDATE a SET u = NULL;
MERGE INTO a USING b ON a.k = b.k AND b.id = 5 WHEN MATCHED THEN UPDATE SET v = plus_one(a.v), t = (SELECT max(t) FROM c);
-- prepared, in a transaction, as a cursor's neighbour
PREPARE merging (int, text) AS MERGE INTO a USING b ON a.k = b.k AND b.id = $1 WHEN MATCHED THEN UPDATE SET t = $2 WHEN NOT MATCHED AND b.id = $1 THEN INSERT (k, t) VALUES (b.k, $2 || ' new');
EXECUTE merging (6, 'six');
EXECUTE merging (NULL, 'none');
EXECUTE merging (80, NULL);
BEGIN;
MERGE INTO a USING b ON a.k = b.k AND b.id = 2 WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND b.id = 2 THEN INSERT (k) VALUES (b.k);
SAVEPOINT one;
MERGE INTO a USING b ON a.k = b.k AND b.id = 2 WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND b.id = 2 THEN INSERT (k, t) VALUES (b.k, 'back');
SELECT * FROM a WHERE k = 2;
ROLLBACK TO one;
SELECT * FROM a WHERE k = 2;
ROLLBACK;
DEALLOCATE merging;
-- rows of values: one shard group, where the key is among them
MERGE INTO a USING (VALUES (1, 'one')) s (k, t) ON a.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO a USING (VALUES (1001, 'new')) s (k, t) ON s.k = a.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO a USING (SELECT 1002 AS k, 'new' AS t) s ON a.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO a USING (SELECT 1002 AS k, 'again' AS t) s ON a.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO a USING (SELECT 1002 AS k) s ON a.k = s.k WHEN MATCHED AND t = 'again' THEN DELETE WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k);
WITH s AS (SELECT 1003 AS k, now() AS at) MERGE INTO a USING s ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, 1 + 0 * extract(epoch FROM s.at)::int);
MERGE INTO a USING (VALUES (1004, 1), (1005, 2), (1, 3)) s (k, v) ON a.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO a USING (VALUES (1006, 1), (1006, 2)) s (k, v) ON a.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO a USING (VALUES (2, 1), (2, 2)) s (k, v) ON a.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v;
MERGE INTO a USING (VALUES (1007, 1), (NULL, 2)) s (k, v) ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO a USING (VALUES (3, 10), (3, 11)) s (k, v) ON a.k = s.k AND s.v = 11 WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k + 1000000, s.v);
MERGE INTO a USING (VALUES (1008::bigint, 1)) s (k, v) ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO a USING (VALUES (5000000000, 1)) s (k, v) ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO a USING (VALUES (5000000000, 1)) s (k, v) ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (1009, s.v);
MERGE INTO a USING (VALUES (nextval('numbers')::int + 2000)) s (k) ON a.k = s.k WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k);
-- NULL is a key, too
MERGE INTO n USING (SELECT NULL::text AS k, 1 AS v) s ON n.k = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
MERGE INTO n USING (VALUES ('key 3', 2)) s (k, v) ON n.k = s.k WHEN MATCHED AND n.v > 20 THEN DELETE WHEN MATCHED THEN UPDATE SET v = n.v + s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
SELECT count(*), count(k), sum(v) FROM n;
-- the target's side of the condition says nothing of rows that have no partner
MERGE INTO a USING (VALUES (1010, 'x')) s (k, t) ON a.k = s.k AND a.k = 2 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO a USING ref ON a.k = ref.id + 3000 AND a.k = 2 WHEN NOT MATCHED THEN INSERT (k, t) VALUES (ref.id + 3000, ref.name);
MERGE INTO a USING (SELECT id + 3100 AS id, name FROM ref) s ON a.k = s.id AND a.k = 2 WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.id, s.name);
MERGE INTO empty USING ref ON empty.k = ref.id AND empty.k = 2 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (ref.id, ref.v);
SELECT * FROM empty WHERE k = 3;
SELECT * FROM empty WHERE k = 4;
DELETE FROM empty;
-- by range and list
MERGE INTO r USING (VALUES (45, 'x')) s (k, t) ON r.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO r USING (VALUES (77, 'x')) s (k, t) ON r.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO r USING (VALUES (7777, 'x')) s (k, t) ON r.k = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s.t = 'y' THEN INSERT (k, t) VALUES (s.k, s.t);
MERGE INTO l USING (VALUES ('fr', 1)) s (k, v) ON l.k = s.k AND l.v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
-- parameters
PREPARE put (int, text) AS MERGE INTO a USING (SELECT $1 AS k, $2 AS t) s ON a.k = s.k WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (k, t) VALUES (s.k, s.t);
EXECUTE put (1020, 'first');
EXECUTE put (1020, 'second');
EXECUTE put (NULL, 'none');
EXECUTE put (1021, NULL);
EXECUTE put (1, 'third');
EXECUTE put (1022, 'x');
EXECUTE put (1022, 'y');
PREPARE put_key (text, int) AS MERGE INTO n USING (VALUES ($1, $2)) s (k, v) ON n.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
EXECUTE put_key ('new key', 1);
EXECUTE put_key ('new key', 2);
EXECUTE put_key (NULL, 3);
EXECUTE put_key (NULL, 4);
EXECUTE put_key ('other key', 5);
EXECUTE put_key ('other key', 6);
SELECT k, v FROM n WHERE k LIKE '% key' OR k IS NULL ORDER BY k, v;
DEALLOCATE ALL;
