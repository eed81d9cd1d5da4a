-- WHERE CURRENT OF cursors over one shard and over several, locking and not.
CREATE TABLE items (k int, id int, v int, t text, PRIMARY KEY (k, id));
CREATE TABLE bag (k text, v int);
-- only: distributed
SELECT create_distributed_table('items', 'k', shard_count => 6);
-- only: distributed
SELECT create_distributed_table('bag', 'k', shard_count => 4);
INSERT INTO items SELECT i % 23, i, i % 5, 'item ' || i FROM generate_series(1, 300) i;
INSERT INTO bag SELECT CASE WHEN i % 3 > 0 THEN 'b' || i % 7 END, i FROM generate_series(1, 40) i;
-- locking, over several shards
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM items WHERE v < 3 ORDER BY id FOR UPDATE;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM items WHERE v < 3 ORDER BY id FOR UPDATE;
FETCH 3 FROM c;
UPDATE items SET t = t || ' third' WHERE CURRENT OF c;
UPDATE items SET t = t || ' again' WHERE CURRENT OF c RETURNING *;
FETCH 2 FROM c;
DELETE FROM items WHERE CURRENT OF c RETURNING k, id;
DELETE FROM items WHERE CURRENT OF c RETURNING k, id;
UPDATE items SET t = 'gone' WHERE CURRENT OF c;
MOVE 4 FROM c;
UPDATE items SET v = v + 100, t = upper(t) WHERE CURRENT OF c RETURNING v, t;
FETCH NEXT FROM c;
UPDATE items SET k = k + 1000 WHERE CURRENT OF c RETURNING k, id;
FETCH NEXT FROM c;
UPDATE items SET id = id + 5000 WHERE CURRENT OF c;
UPDATE items SET v = -1 WHERE CURRENT OF c RETURNING id, v;
MOVE ALL FROM c;
COMMIT;
SELECT count(*), sum(v), sum(k) FROM items;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM items ORDER BY id FOR UPDATE;
MOVE ALL FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
-- LIMIT, hidden sort columns, names
BEGIN;
DECLARE "My Cursor" CURSOR FOR SELECT t AS id FROM items ORDER BY v DESC, id LIMIT 5 FOR NO KEY UPDATE;
FETCH 5 FROM "My Cursor";
UPDATE items SET t = 'fifth' WHERE CURRENT OF "My Cursor" RETURNING id;
FETCH 1 FROM "My Cursor";
UPDATE items SET t = 'sixth' WHERE CURRENT OF "My Cursor" RETURNING id;
ROLLBACK;
-- one shard
BEGIN;
DECLARE c CURSOR FOR SELECT id, t FROM items WHERE k = 21;
FETCH 2 FROM c;
UPDATE items SET t = t || ' current' WHERE CURRENT OF c RETURNING id, t;
UPDATE items SET t = t || ' twice' WHERE CURRENT OF c RETURNING id, t;
FETCH 1 FROM c;
DELETE FROM items WHERE CURRENT OF c RETURNING id;
DELETE FROM items WHERE CURRENT OF c RETURNING id;
COMMIT;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM items WHERE k = 22;
FETCH ALL FROM c;
FETCH PRIOR FROM c;
UPDATE items SET t = 'last' WHERE CURRENT OF c RETURNING id;
FETCH ABSOLUTE 2 FROM c;
UPDATE items SET t = 'second' WHERE CURRENT OF c RETURNING id;
FETCH RELATIVE 0 FROM c;
UPDATE items SET t = 'still second' WHERE CURRENT OF c RETURNING id;
FETCH FIRST FROM c;
DELETE FROM items WHERE CURRENT OF c RETURNING id;
COMMIT;
-- several shards without locks
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM items WHERE id = 77;
FETCH 1 FROM c;
UPDATE items SET t = 'only' WHERE CURRENT OF c RETURNING *;
FETCH 1 FROM c;
UPDATE items SET t = 'none' WHERE CURRENT OF c RETURNING *;
ROLLBACK;
-- keys that are NULL
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM bag ORDER BY v FOR UPDATE;
MOVE 3 FROM c;
UPDATE bag SET v = v + 1000 WHERE CURRENT OF c RETURNING *;
FETCH 1 FROM c;
DELETE FROM bag WHERE CURRENT OF c RETURNING *;
COMMIT;
-- joins that lock one table, and both
BEGIN;
DECLARE c CURSOR FOR SELECT i.id, c.id FROM items i JOIN c ON c.id = i.k WHERE i.v = 2 ORDER BY 1, 2 FOR UPDATE OF i;
FETCH 2 FROM c;
UPDATE items SET t = 'joined' WHERE CURRENT OF c RETURNING k, id;
UPDATE c SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT i.id, c.id FROM items i JOIN c ON c.id = i.k WHERE i.v = 2 ORDER BY 1, 2 FOR UPDATE;
FETCH 2 FROM c;
UPDATE items SET t = 'joined' WHERE CURRENT OF c RETURNING k, id;
UPDATE c SET t = 'joined' WHERE CURRENT OF c RETURNING id;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT a.id FROM items a JOIN items b USING (k, id) ORDER BY 1 FOR UPDATE;
FETCH 1 FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
-- joins with tables that are locked here
BEGIN;
DECLARE c CURSOR FOR SELECT i, ref.id FROM items i JOIN ref ON ref.id = i.k ORDER BY i.id FOR UPDATE;
FETCH 2 FROM c;
UPDATE items SET t = 'with ref' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT i.t, loc.id FROM items i, loc WHERE loc.id = i.k AND i.v > 1 ORDER BY i.id LIMIT 4 FOR UPDATE;
FETCH 3 FROM c;
UPDATE items SET t = 'with loc' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT i, i.t, loc.id FROM loc JOIN items i ON loc.id = i.k AND i.v > 1 WHERE loc.id < 5 ORDER BY i.id FOR UPDATE OF i, loc;
FETCH 2 FROM c;
DELETE FROM items WHERE CURRENT OF c RETURNING k, id, v;
FETCH 1 FROM c;
UPDATE items SET v = v + 1, k = 3 WHERE CURRENT OF c RETURNING k, id, v;
UPDATE c SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
-- through views
CREATE VIEW some_items AS SELECT id AS number, k, t FROM items WHERE v > 1;
CREATE VIEW few_items AS SELECT t, number FROM some_items WHERE k < 20;
CREATE VIEW with_loc AS SELECT i.id, loc.t FROM items i JOIN loc ON loc.id = i.k;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM few_items WHERE number < 20;
-- ignore: rows
FETCH 1 FROM c;
-- ignore: rows
UPDATE items SET t = 'through a view' WHERE CURRENT OF c RETURNING t;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT f, f.* FROM few_items f ORDER BY number FOR UPDATE;
FETCH 3 FROM c;
UPDATE items SET t = 'through a view' WHERE CURRENT OF c RETURNING *;
UPDATE items SET t = 'again' WHERE CURRENT OF c RETURNING *;
FETCH 1 FROM c;
DELETE FROM items WHERE CURRENT OF c RETURNING *;
UPDATE items SET t = 'gone' WHERE CURRENT OF c RETURNING *;
UPDATE c SET t = 'no' WHERE CURRENT OF c;
UPDATE few_items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM with_loc ORDER BY id FOR UPDATE;
FETCH 3 FROM c;
UPDATE items SET t = 'view with loc' WHERE CURRENT OF c RETURNING k, id;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM few_items f JOIN loc ON loc.id = f.number ORDER BY number LIMIT 3 FOR UPDATE;
FETCH 2 FROM c;
UPDATE items SET t = 'view with loc' WHERE CURRENT OF c RETURNING k, id;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM few_items WHERE number = 4 AND t <> 'x' FOR NO KEY UPDATE;
FETCH 1 FROM c;
UPDATE items SET t = 'one' WHERE CURRENT OF c RETURNING k, id;
ROLLBACK;
DROP VIEW few_items, some_items, with_loc;
-- values that only the coordinator computes, other tables
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id FOR UPDATE;
FETCH 1 FROM c;
UPDATE items SET v = plus_one(v) WHERE CURRENT OF c RETURNING v;
UPDATE items SET v = (SELECT count(*) FROM c) WHERE CURRENT OF c RETURNING v;
UPDATE items SET t = ref.name FROM ref WHERE CURRENT OF c;
ROLLBACK;
-- errors
BEGIN;
UPDATE items SET t = 'no' WHERE CURRENT OF nowhere;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT count(*) FROM items;
FETCH 1 FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM bag;
-- ignore: rows
FETCH 1 FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT k FROM items UNION SELECT id FROM c;
-- ignore: rows
FETCH 1 FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM loc ORDER BY id FOR UPDATE;
FETCH 1 FROM c;
UPDATE items SET t = 'no' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM loc ORDER BY id FOR UPDATE;
FETCH 1 FROM c;
UPDATE loc SET t = 'local' WHERE CURRENT OF c RETURNING *;
ROLLBACK;
-- Rows are locked ahead of the cursor, so where a local table's row is isn't known.
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM loc JOIN items ON items.id = loc.id ORDER BY items.k, items.id FOR UPDATE;
FETCH 2 FROM c;
-- refused: 24000
UPDATE loc SET t = 'local' WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT * FROM items WHERE k = 20;
FETCH 1 FROM h;
COMMIT;
UPDATE items SET t = 'no' WHERE CURRENT OF h;
CLOSE h;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM items ORDER BY id FOR UPDATE;
FETCH 1 FROM c;
SAVEPOINT s;
UPDATE items SET t = 'undone' WHERE CURRENT OF c RETURNING t;
ROLLBACK TO s;
UPDATE items SET t = 'done' WHERE CURRENT OF c RETURNING id, t;
ROLLBACK;
-- in PL/pgSQL
DO $$
DECLARE
    cur CURSOR FOR SELECT * FROM items WHERE v = 1 ORDER BY id FOR UPDATE;
    n int := 0;
BEGIN
    FOR r IN cur LOOP
        n := n + 1;
        IF n % 2 = 0 THEN
            UPDATE items SET t = 'even ' || r.id, v = n WHERE CURRENT OF cur;
        ELSIF n % 3 = 0 THEN
            DELETE FROM items WHERE CURRENT OF cur;
        END IF;
    END LOOP;
    INSERT INTO loc VALUES (2000, n, 'cursor');
END $$;
SELECT v FROM loc WHERE id = 2000;
DELETE FROM loc WHERE id = 2000;
SELECT count(*), sum(v) FROM items;
CREATE FUNCTION by_cursor(key int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    c refcursor;
    r record;
    n int := 0;
BEGIN
    OPEN c FOR SELECT * FROM items WHERE k = key FOR UPDATE;
    LOOP
        FETCH c INTO r;
        EXIT WHEN NOT FOUND;
        UPDATE items SET v = v + 1 WHERE CURRENT OF c;
        n := n + 1;
    END LOOP;
    CLOSE c;
    RETURN n;
END $$;
SELECT by_cursor(7), by_cursor(8), by_cursor(-1);
SELECT by_cursor(k) FROM generate_series(1, 10) k;
SELECT sum(v) FROM items;
DROP FUNCTION by_cursor;
DROP TABLE items, bag;
