-- Rows that a subquery picks by ctid, over several shards: as many as plain PostgreSQL changes, and those only.
CREATE TABLE logs (k int, id int, at date, t text, gone int, twice int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (k, id));
ALTER TABLE logs DROP COLUMN gone;
-- only: distributed
SELECT create_distributed_table('logs', 'k', shard_count => 6);
INSERT INTO logs SELECT i % 97, i, date '2024-01-01' + i % 50, 'log ' || i FROM generate_series(1, 3000) i;
BEGIN;
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE at < '2024-01-10' LIMIT 100);
SELECT count(*), count(*) FILTER (WHERE at < '2024-01-10') FROM logs;
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE at < '2024-01-10' LIMIT 100000);
SELECT count(*), count(*) FILTER (WHERE at < '2024-01-10') FROM logs;
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE at < '2024-01-10' LIMIT 100);
ROLLBACK;
-- forms, with an order that says which rows
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE at < '2024-01-20' ORDER BY id LIMIT 10);
DELETE FROM logs WHERE ctid = ANY (ARRAY(SELECT ctid FROM logs WHERE at < '2024-01-20' ORDER BY id LIMIT 10));
DELETE FROM logs WHERE ctid = (SELECT ctid FROM logs ORDER BY at, id LIMIT 1);
DELETE FROM logs WHERE (SELECT ctid FROM logs ORDER BY at, id FETCH FIRST ROW ONLY) = ctid;
DELETE FROM logs WHERE ctid = (SELECT ctid FROM logs WHERE false LIMIT 1);
DELETE FROM logs l USING (SELECT ctid FROM logs ORDER BY at, id LIMIT 7) s WHERE l.ctid = s.ctid;
DELETE FROM logs l USING (SELECT ctid, id, at AS day FROM logs ORDER BY at, id LIMIT 7 FOR UPDATE SKIP LOCKED) s WHERE s.ctid = l.ctid AND s.id % 2 = 0 RETURNING l.id, s.id, s.day, l.twice;
WITH old AS (SELECT ctid FROM logs ORDER BY at, id LIMIT 5) DELETE FROM logs WHERE ctid IN (SELECT ctid FROM old);
WITH old AS (SELECT ctid, id FROM logs ORDER BY at, id LIMIT 5 FOR UPDATE) DELETE FROM logs USING old WHERE logs.ctid = old.ctid AND old.id > 0;
WITH old AS MATERIALIZED (SELECT ctid, id FROM logs ORDER BY at, id LIMIT 5 FOR UPDATE) DELETE FROM logs USING old WHERE logs.ctid = old.ctid AND EXISTS (SELECT FROM old o WHERE o.id > old.id);
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER (PARTITION BY t ORDER BY id) n FROM logs) x WHERE n > 1);
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM (SELECT ctid, rank() OVER (PARTITION BY at ORDER BY id DESC) n FROM logs) x WHERE n <= 2);
DELETE FROM logs WHERE ctid IN (SELECT DISTINCT ON (at) ctid FROM logs ORDER BY at, id);
DELETE FROM logs WHERE id < 500 AND ctid IN (SELECT ctid FROM logs ORDER BY id DESC LIMIT 1000);
DELETE FROM logs WHERE id < 2500 AND ctid IN (SELECT ctid FROM logs ORDER BY id DESC LIMIT 600) AND at > '2024-01-15';
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE id < 700);
-- what the rows join
DELETE FROM logs WHERE ctid IN (SELECT l.ctid FROM logs l JOIN c ON c.id = l.id % 60 WHERE l.id < 900 ORDER BY l.id, c.id LIMIT 20);
DELETE FROM logs WHERE ctid IN (SELECT l.ctid FROM logs l LEFT JOIN c ON c.id = l.k WHERE c.id IS NULL ORDER BY l.id LIMIT 20);
DELETE FROM logs WHERE ctid IN (SELECT l.ctid FROM c LEFT JOIN logs l ON c.id = l.k ORDER BY c.id, l.id NULLS FIRST LIMIT 20);
DELETE FROM logs WHERE ctid IN (SELECT l.ctid FROM loc JOIN logs l ON l.k = loc.id ORDER BY l.id LIMIT 20);
DELETE FROM logs l USING c, (SELECT ctid FROM logs ORDER BY id LIMIT 30) s WHERE l.ctid = s.ctid AND c.id = l.k RETURNING l.id > 0, c.id = l.k;
-- duplicates, compared by ctid within their shard
INSERT INTO n SELECT 'twice ' || i % 10, i / 2, NULL FROM generate_series(1, 40) i;
SELECT count(*) FROM n;
DELETE FROM n a USING n b WHERE a.k = b.k AND a.v = b.v AND a.d IS NULL AND b.d IS NULL AND a.ctid > b.ctid;
SELECT count(*), sum(v) FROM n;
-- keys that are NULL
DELETE FROM n WHERE ctid IN (SELECT ctid FROM n WHERE k IS NULL ORDER BY v LIMIT 4) RETURNING v;
UPDATE n SET v = v + 100 WHERE ctid IN (SELECT ctid FROM n ORDER BY v DESC LIMIT 4) RETURNING *;
UPDATE n SET k = 'moved' WHERE ctid IN (SELECT ctid FROM n WHERE d IS NOT NULL ORDER BY d LIMIT 9);
SELECT count(*) FROM n WHERE k = 'moved';
-- UPDATE
UPDATE logs SET t = upper(t) || k WHERE ctid IN (SELECT ctid FROM logs ORDER BY at DESC, id LIMIT 12);
UPDATE logs SET t = 'x' || p.id, id = p.id + 10000 FROM (SELECT ctid, id FROM logs ORDER BY id LIMIT 12 FOR UPDATE) p WHERE p.ctid = logs.ctid;
-- unordered
UPDATE logs SET k = k + 500 WHERE ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 40) RETURNING k, id, twice;
-- unordered
UPDATE logs SET t = NULL WHERE ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 3) RETURNING logs;
-- unordered
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 3) RETURNING logs, to_jsonb(logs);
-- ignore: rows
UPDATE logs SET t = gen_random_uuid() WHERE ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 3) RETURNING t;
UPDATE logs SET t = 'fixed' WHERE length(t) = 36;
UPDATE logs SET (t, id) = (SELECT max(c.t), 20000 + logs.id FROM c) WHERE ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 3);
-- by range, by list, other names
DELETE FROM r WHERE ctid IN (SELECT ctid FROM r ORDER BY t LIMIT 11);
UPDATE l SET v = -v WHERE ctid = ANY (ARRAY(SELECT ctid FROM l ORDER BY v LIMIT 11));
UPDATE "Odd Table" SET "a""b" = 'picked' || seq WHERE ctid IN (SELECT ctid FROM "Odd Table" ORDER BY seq LIMIT 5);
DELETE FROM "Odd Table" WHERE ctid IN (SELECT ctid FROM "Odd Table" ORDER BY seq DESC LIMIT 5);
-- routed
DELETE FROM logs WHERE k = 7 AND ctid IN (SELECT ctid FROM logs WHERE k = 7 ORDER BY id LIMIT 2) RETURNING id;
DELETE FROM logs WHERE k = 7 AND ctid IN (SELECT ctid FROM logs ORDER BY id LIMIT 300) RETURNING id > 0;
-- prepared
PREPARE trim(int, int) AS DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE k >= $1 ORDER BY id LIMIT $2);
EXECUTE trim(10, 1);
EXECUTE trim(10, 2);
EXECUTE trim(10, 3);
EXECUTE trim(10, 4);
EXECUTE trim(10, 5);
EXECUTE trim(10, 6);
EXECUTE trim(10, 0);
DEALLOCATE trim;
-- in loops
SELECT count(*) FROM logs;
DO $$
DECLARE n int; rounds int := 0;
BEGIN
    LOOP
        DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE id % 3 = 0 LIMIT 50);
        GET DIAGNOSTICS n = ROW_COUNT;
        EXIT WHEN n = 0;
        rounds := rounds + 1;
    END LOOP;
    INSERT INTO loc VALUES (1000, rounds, 'rounds');
END $$;
SELECT v FROM loc WHERE id = 1000;
CREATE FUNCTION purge(batch int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE total int := 0; n int;
BEGIN
    LOOP
        WITH gone AS (SELECT ctid FROM logs WHERE id % 5 = 0 LIMIT batch FOR UPDATE SKIP LOCKED)
        DELETE FROM logs USING gone WHERE logs.ctid = gone.ctid;
        GET DIAGNOSTICS n = ROW_COUNT;
        total := total + n;
        EXIT WHEN n < batch;
    END LOOP;
    RETURN total;
END $$;
SELECT purge(64);
DROP FUNCTION purge;
DELETE FROM loc WHERE id = 1000;
SELECT count(*) FROM logs;
-- many rows
INSERT INTO logs SELECT i % 1000, 100000 + i, '2025-01-01', 'many' FROM generate_series(1, 120000) i;
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE at = '2025-01-01' LIMIT 100000);
SELECT count(*) FROM logs WHERE at = '2025-01-01';
UPDATE logs SET k = k + 1 WHERE ctid IN (SELECT ctid FROM logs WHERE at = '2025-01-01' LIMIT 19000);
SELECT count(*) FROM logs WHERE at = '2025-01-01';
DELETE FROM logs WHERE at = '2025-01-01';
-- what cannot be told apart by shard
-- refused: 0A000
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs LIMIT 2) RETURNING ctid;
-- refused: 0A000
DELETE FROM logs WHERE ctid = '(0,1)';
-- refused: 0A000
DELETE FROM logs WHERE ctid NOT IN (SELECT min(ctid) FROM logs GROUP BY at);
-- refused: 0A000
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM c);
-- refused: 0A000
DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE id < 10 UNION ALL SELECT ctid FROM logs WHERE id > 100);
-- refused: 0A000
DELETE FROM logs USING (SELECT ctid FROM logs LIMIT 5) p, (SELECT ctid FROM logs LIMIT 5) q WHERE logs.ctid = p.ctid AND p.ctid > q.ctid;
-- refused: 0A000
DELETE FROM logs WHERE xmin = '5' OR ctid IN (SELECT ctid FROM logs LIMIT 2);
DROP TABLE logs;
