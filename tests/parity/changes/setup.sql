-- Tables that are changed in every way: by what other tables say, by key, by MERGE.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);

-- a: by its primary key; b: colocated with a; c: by another column; n: keys may be NULL, nothing is unique
CREATE TABLE a (k int PRIMARY KEY, v int, t text, n numeric(10, 2) DEFAULT 1.5, u uuid);
INSERT INTO a SELECT i, i % 7, 'a' || i, i / 3.0 FROM generate_series(1, 60) i;
CREATE TABLE b (k int, id int, v int, t text, PRIMARY KEY (k, id));
INSERT INTO b SELECT i % 20, i, i % 5, 'b' || i FROM generate_series(1, 80) i;
CREATE TABLE c (id bigint PRIMARY KEY, k int, v int, t text);
INSERT INTO c SELECT i, i % 30, i % 4, 'c' || i FROM generate_series(1, 50) i;
CREATE TABLE n (k text, v int, d date);
INSERT INTO n SELECT CASE WHEN i % 4 <> 0 THEN 'key ' || i % 11 END, i, date '2024-01-01' + i FROM generate_series(1, 60) i;
INSERT INTO n SELECT 'same', 7, NULL FROM generate_series(1, 5);

-- odd: names that need quotes, a dropped column, generated ones, types of the user, identity
CREATE TABLE "Odd Table" (
    "Key 1" int, gone int, "a""b" text DEFAULT 'über', m mood, p pair, l int[], d positive,
    twice int GENERATED ALWAYS AS (d * 2) STORED, j json, "VALUE" varchar(5), seq int GENERATED ALWAYS AS IDENTITY,
    UNIQUE ("Key 1", "a""b")
);
ALTER TABLE "Odd Table" DROP COLUMN gone;
INSERT INTO "Odd Table" ("Key 1", "a""b", m, p, l, d, j, "VALUE")
SELECT i % 12, 'ü' || i, (enum_range(NULL::mood))[1 + i % 3], ROW(i, 'y"' || i)::pair, ARRAY[i, NULL], i, json_build_object('a', i), 'v' || i
FROM generate_series(1, 40) i;
ALTER TABLE "Odd Table" ADD COLUMN late int DEFAULT 5;

-- by range, by list
CREATE TABLE r (k int, v int, t text);
INSERT INTO r SELECT i, i % 3, 'r' || i FROM generate_series(1, 50) i;
CREATE TABLE l (k text, v int);
INSERT INTO l SELECT (ARRAY['de', 'fr', 'uk'])[1 + i % 3], i FROM generate_series(1, 30) i;

-- referred to: keys of p
CREATE TABLE p (k int PRIMARY KEY, t text);
INSERT INTO p SELECT i, 'p' || i FROM generate_series(1, 30) i;
CREATE TABLE q (k int, id int, t text, PRIMARY KEY (k, id), CONSTRAINT q_fk FOREIGN KEY (k) REFERENCES p ON DELETE CASCADE);
INSERT INTO q SELECT 1 + i % 10, i, 'q' || i FROM generate_series(1, 30) i;
CREATE TABLE s (k int, id int, CONSTRAINT s_fk FOREIGN KEY (k) REFERENCES p);
INSERT INTO s SELECT 11 + i % 5, i FROM generate_series(1, 20) i;

-- reference and local tables; empty ones
CREATE TABLE ref (id int PRIMARY KEY, name text, v int DEFAULT 3);
INSERT INTO ref SELECT i, 'ref' || i, i % 4 FROM generate_series(1, 20) i;
CREATE TABLE ref_bag (name text, v int);
INSERT INTO ref_bag SELECT 'bag' || i % 5, i % 3 FROM generate_series(1, 24) i;
CREATE TABLE loc (id int PRIMARY KEY, v int, t text);
INSERT INTO loc SELECT i, i % 6, 'loc' || i FROM generate_series(1, 40) i;
CREATE TABLE empty (k int PRIMARY KEY, v int);

CREATE TABLE lengths (k int PRIMARY KEY, v varchar(5), c char(3), b bit(3), vb varbit(3), a varchar(3)[], n numeric(4, 1));
INSERT INTO lengths SELECT i, 'v' || i, 'c', B'101', B'1', ARRAY['a', 'b'], i FROM generate_series(1, 10) i;

CREATE VIEW a_small AS SELECT k, v, t FROM a WHERE v < 4 WITH CHECK OPTION;
CREATE VIEW a_all AS SELECT k AS key, t AS "T x", v FROM a;
CREATE FUNCTION plus_one(int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN $1 + 1; END $$;
CREATE FUNCTION stable_ten() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN 10; END $$;
CREATE SEQUENCE numbers;

-- reference tables without a primary key: unique columns, rows that are alike in all values; one that refers to itself
CREATE TABLE ref_unique (a int NOT NULL, b text NOT NULL, v int, UNIQUE (b, a));
INSERT INTO ref_unique SELECT i, 'u' || i % 3, i FROM generate_series(1, 12) i;
CREATE TABLE ref_tree (id int PRIMARY KEY, up int REFERENCES ref_tree ON UPDATE CASCADE ON DELETE CASCADE, v int CHECK (v > 0));
INSERT INTO ref_tree SELECT i, nullif(i / 2, 0), i FROM generate_series(1, 15) i;
CREATE TABLE "Ref Odd" (
    "Id 1" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, m mood, p pair, l int[], f float8, c char(4), n numeric(8, 2),
    twice int GENERATED ALWAYS AS (coalesce(l[1], 0) * 2) STORED, j jsonb, ts timestamptz, s text DEFAULT 'x', big text
);
ALTER TABLE "Ref Odd" DROP COLUMN gone;
INSERT INTO "Ref Odd" (m, p, l, f, c, n, j, ts, big)
SELECT (enum_range(NULL::mood))[1 + i % 3], ROW(i, 'y"' || i)::pair, ARRAY[i, NULL], i / 3.0, 'c' || i, i / 7.0, jsonb_build_object('a', i), timestamptz '2024-01-01 UTC' + i * interval '1 hour', repeat('long ' || i, 700)
FROM generate_series(1, 9) i;
CREATE TABLE ref_copy (LIKE "Ref Odd" INCLUDING ALL EXCLUDING INDEXES);
CREATE VIEW ref_small AS SELECT id, name, v FROM ref WHERE v < 3 WITH CHECK OPTION;
-- whether all copies of a reference table hold the same rows
CREATE FUNCTION copies_differ(regclass) RETURNS boolean LANGUAGE sql AS 'SELECT false';
