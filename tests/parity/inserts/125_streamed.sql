-- INSERT … SELECT of more rows than a batch: what goes by COPY while other rows are still being read.
CREATE TABLE wide (id int PRIMARY KEY, grp int NOT NULL, pad text NOT NULL, at timestamptz, amount numeric(12, 2) CHECK (amount >= 0));
CREATE TABLE flipped (grp int NOT NULL, id int NOT NULL, pad text, at timestamptz, amount numeric, PRIMARY KEY (grp, id));
CREATE TABLE coloured (k int PRIMARY KEY, color tint, home place, d even, c code, days date[], span interval);
CREATE TABLE counted (n bigserial PRIMARY KEY, id int, twice int GENERATED ALWAYS AS (id * 2) STORED);
-- only: distributed
SELECT create_distributed_table('wide', 'id', shard_count => 8);
-- only: distributed
SELECT create_distributed_table('flipped', 'grp', shard_count => 5);
-- only: distributed
SELECT create_distributed_table('coloured', 'k', shard_count => 3);
-- only: distributed
SELECT create_distributed_table('counted', 'n', shard_count => 4);
-- only: distributed
SET shard_ext.copy_buffer_size = '256kB';
INSERT INTO wide SELECT i, i % 100, repeat('x', i % 50) || i, timestamptz '2024-01-01 00:00+00' + i * interval '1 hour', i FROM generate_series(2, 8000, 2) i;
SELECT count(*), sum(id), sum(length(pad)), max(at), sum(amount) FROM wide;
INSERT INTO flipped SELECT grp, id, pad, at, amount FROM wide;
SELECT count(*), sum(id), sum(length(pad)), max(at), sum(amount) FROM flipped;
INSERT INTO wide SELECT id + 10000, grp, pad, at, amount FROM wide;
SELECT count(*), sum(id), count(DISTINCT id) FROM wide;
-- no part of the statement sees its own rows, whenever it is read
INSERT INTO wide SELECT id + 100000, grp, pad, NULL, amount FROM wide UNION ALL SELECT id + 200000, grp, pad, NULL, amount FROM wide;
SELECT count(*), sum(id), count(DISTINCT id) FROM wide;
INSERT INTO wide SELECT id + 300000, grp, pad, NULL, (SELECT count(*) FROM wide w WHERE w.id > 100000) FROM wide WHERE id < 5000;
SELECT DISTINCT amount FROM wide WHERE id > 300000;
INSERT INTO wide SELECT i + 1000000, 1, repeat('seen', 40), NULL, (SELECT count(*) FROM wide w WHERE w.grp = i % 3 AND w.id < 1000) FROM generate_series(1, 800) i;
SELECT amount, count(*) FROM wide WHERE id > 1000000 GROUP BY 1 ORDER BY 1;
DELETE FROM wide WHERE id > 20000;
INSERT INTO flipped SELECT w.grp + 1000, f.id, f.pad || w.pad, w.at, f.amount FROM wide w JOIN flipped f ON f.id = w.id AND f.grp = w.grp;
INSERT INTO flipped SELECT w.grp + 2000, w.id, f.pad, w.at, f.amount FROM wide w LEFT JOIN flipped f ON f.amount = w.amount AND f.grp < 100;
SELECT count(*), count(pad), sum(length(pad)), sum(amount) FROM flipped;
WITH some AS (SELECT * FROM wide WHERE id < 7000), more AS MATERIALIZED (SELECT * FROM flipped WHERE grp < 100) INSERT INTO flipped SELECT 3000, some.id, more.pad, more.at, 1 FROM some JOIN more USING (id);
INSERT INTO flipped SELECT 4000, id, pad, at, amount FROM (SELECT * FROM wide ORDER BY id LIMIT 5000) top;
SELECT count(*), sum(id), sum(length(pad)) FROM flipped WHERE grp >= 3000;
DELETE FROM flipped WHERE grp >= 100;
-- sequences take the rows in their order
INSERT INTO counted (id) SELECT id FROM wide ORDER BY id DESC;
SELECT count(*), min(n + id), max(n + id), sum(twice) FROM counted WHERE id <= 8000;
INSERT INTO counted (id) SELECT n FROM counted ORDER BY n;
SELECT count(*), count(DISTINCT n), max(n), sum(twice) FROM counted;
-- in the text format, whatever the settings say
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'postgres_verbose';
INSERT INTO coloured SELECT id, CASE id % 3 WHEN 0 THEN 'red'::tint WHEN 1 THEN 'blue' END, ROW (pad || E'\t\\N\n', id)::place, id * 2, 'c' || id, ARRAY[at::date, NULL], id * interval '1 hour' FROM wide WHERE id < 8000;
RESET DateStyle;
RESET IntervalStyle;
SELECT color, count(*), sum((home).zip), sum(d), min(days), max(days), max(span), sum(length((home).street)) FROM coloured GROUP BY 1 ORDER BY 1;
INSERT INTO coloured SELECT k + 100000, color, home, d, c, days, span FROM coloured;
INSERT INTO coloured SELECT id + 200000, 'red', NULL, id, 'c', NULL, NULL FROM wide WHERE id < 8000;
INSERT INTO coloured (k, d) SELECT k + 300000, d + 1 FROM coloured WHERE k < 8000;
SELECT count(*), sum(k), sum((home).zip) FROM coloured;
-- errors: nothing is kept
INSERT INTO wide SELECT id + 20000 - CASE WHEN id = 7778 THEN 20000 ELSE 0 END, grp, pad, at, amount FROM wide WHERE id < 8001;
INSERT INTO wide SELECT id + 20000, grp, pad, at, 7000 - amount FROM wide WHERE id < 8001;
INSERT INTO wide SELECT id + 20000, grp, CASE WHEN id <> 7000 THEN pad END, at, amount FROM wide WHERE id < 8001;
INSERT INTO wide SELECT CASE WHEN id <> 7000 THEN id + 20000 END, grp, pad, at, amount FROM wide WHERE id < 8001;
INSERT INTO wide SELECT id + 20000, grp, pad, at, amount / (7000 - id) FROM wide WHERE id < 7001;
INSERT INTO wide SELECT id + 20000, grp, pad, at, amount * 10000000000 FROM wide WHERE id < 7001;
SELECT count(*), max(id) FROM wide;
-- ON CONFLICT, RETURNING and conditions keep to statements of arrays
INSERT INTO flipped SELECT grp, id, 'again', at, amount FROM wide WHERE id < 12000 ON CONFLICT DO NOTHING;
INSERT INTO flipped AS f SELECT grp, id, 'more', at, 1 FROM wide WHERE id < 16000 ON CONFLICT (grp, id) DO UPDATE SET pad = excluded.pad, amount = f.amount + excluded.amount;
SELECT pad, count(*), sum(amount) FROM flipped WHERE pad !~ '^x|[0-9]' GROUP BY pad ORDER BY pad;
WITH added AS (INSERT INTO flipped SELECT 500, id, pad, at, amount FROM wide RETURNING id, amount) SELECT count(*), sum(id), sum(amount) FROM added;
WITH gone AS (DELETE FROM flipped WHERE grp = 500 RETURNING *) INSERT INTO flipped SELECT 501, id, pad, at, amount FROM gone;
SELECT grp, count(*) FROM flipped WHERE grp >= 500 GROUP BY grp;
DELETE FROM flipped WHERE grp >= 100;
-- in transactions: what was changed before is seen, whatever the isolation
BEGIN;
INSERT INTO wide VALUES (50001, 1, 'first', NULL, 1);
INSERT INTO flipped SELECT 600, id, pad, at, amount FROM wide;
SELECT count(*), count(*) FILTER (WHERE pad = 'first') FROM flipped WHERE grp = 600;
INSERT INTO flipped SELECT 601, id, pad, at, amount FROM flipped WHERE grp = 600 UNION ALL SELECT 602, id, pad, at, amount FROM flipped WHERE grp >= 600;
SELECT grp, count(*) FROM flipped WHERE grp >= 600 GROUP BY grp ORDER BY grp;
SAVEPOINT s;
INSERT INTO wide SELECT id + 60000 - CASE WHEN grp = 601 AND id = 7000 THEN 60000 ELSE 0 END, 1, 'x', NULL, 1 FROM flipped WHERE grp >= 600;
ROLLBACK TO s;
INSERT INTO wide SELECT id + 60000, 1, 'x', NULL, 1 FROM flipped WHERE grp = 600;
SELECT count(*) FROM wide;
ROLLBACK;
BEGIN;
SELECT count(*) FROM wide;
INSERT INTO flipped SELECT 600, id, pad, at, amount FROM wide;
INSERT INTO flipped SELECT 601, id, pad, at, amount FROM flipped WHERE grp = 600;
SELECT grp, count(*) FROM flipped WHERE grp >= 600 GROUP BY grp ORDER BY grp;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO flipped SELECT 602, id, pad, at, amount FROM wide UNION ALL SELECT 603, id, pad, at, amount FROM flipped WHERE grp >= 600;
SELECT grp, count(*) FROM flipped WHERE grp >= 600 GROUP BY grp ORDER BY grp;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO flipped SELECT 604, id, pad, at, amount FROM wide;
DELETE FROM flipped WHERE grp > 600;
COMMIT;
INSERT INTO flipped SELECT 605, id, pad, at, amount FROM wide WHERE id < 9000 FOR UPDATE;
INSERT INTO flipped SELECT 606, id, pad, at, amount FROM (SELECT * FROM wide ORDER BY id LIMIT 4000 FOR UPDATE) w;
SELECT grp, count(*) FROM flipped WHERE grp >= 600 GROUP BY grp ORDER BY grp;
DELETE FROM flipped WHERE grp >= 100;
-- functions that run statements while rows are computed
CREATE FUNCTION rows_of(which int) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM flipped WHERE grp = which); END';
CREATE FUNCTION noted(which int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN IF which % 1000 = 0 THEN INSERT INTO nullable VALUES (which, ''noted''); END IF; RETURN which; END';
INSERT INTO flipped SELECT 700, noted(id), pad, at, CASE WHEN id % 500 = 0 THEN rows_of(1) ELSE 0 END FROM wide;
SELECT count(*), sum(amount) FROM flipped WHERE grp = 700;
SELECT count(*) FROM nullable WHERE v = 'noted';
CREATE FUNCTION streamed() RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text := ''; r record; n bigint;
BEGIN
    FOR r IN SELECT grp, count(*) AS n FROM wide WHERE grp < 3 GROUP BY grp ORDER BY grp LOOP
        INSERT INTO flipped SELECT 800 + r.grp, id, pad, at, amount FROM wide WHERE id > r.grp;
        GET DIAGNOSTICS n = ROW_COUNT;
        said := said || n || ',';
        BEGIN
            INSERT INTO flipped SELECT 810, id % 9000, pad, at, amount FROM wide;
        EXCEPTION WHEN unique_violation THEN
            said := said || 'twice,';
        END;
    END LOOP;
    FOR r IN SELECT id FROM wide WHERE id % 1000 = 0 ORDER BY id LOOP
        UPDATE flipped SET pad = 'updated' WHERE grp = 800 AND id = r.id;
    END LOOP;
    RETURN said || (SELECT count(*) FROM flipped WHERE grp BETWEEN 800 AND 810);
END $$;
SELECT streamed();
SELECT grp, count(*), count(*) FILTER (WHERE pad = 'updated') FROM flipped WHERE grp >= 700 GROUP BY grp ORDER BY grp;
DO $$
DECLARE c CURSOR FOR SELECT id FROM wide ORDER BY id; i int; n int := 0;
BEGIN
    OPEN c;
    FETCH c INTO i;
    INSERT INTO flipped SELECT 900, id, pad, at, amount FROM wide;
    LOOP
        FETCH c INTO i;
        EXIT WHEN NOT FOUND;
        n := n + 1;
    END LOOP;
    INSERT INTO flipped VALUES (901, n);
END $$;
SELECT grp, count(*), max(id) FROM flipped WHERE grp >= 900 GROUP BY grp ORDER BY grp;
-- from and into local tables, and rows of lists
INSERT INTO staging SELECT id, grp, pad, at FROM wide;
INSERT INTO flipped SELECT 1000, id, b, t, a FROM staging WHERE b LIKE 'x%';
SELECT count(*), sum(id), sum(amount) FROM flipped WHERE grp = 1000;
DELETE FROM staging WHERE t > '2024-01-01 00:00+00';
DROP FUNCTION streamed();
DROP FUNCTION noted(int);
DROP FUNCTION rows_of(int);
DROP TABLE wide;
DROP TABLE flipped;
DROP TABLE coloured;
DROP TABLE counted;
-- only: distributed
RESET shard_ext.copy_buffer_size;
