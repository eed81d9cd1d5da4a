-- Small tables of every kind, with NULLs and duplicates in every column, for generated statements (../generate.py).
CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
CREATE TYPE spot AS (x int, y text);
CREATE DOMAIN small AS int CHECK (VALUE > 0);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE
    AS 'SELECT CASE WHEN length($1) > length($2) OR length($1) = length($2) AND $1 > $2 OR $2 IS NULL THEN $1 ELSE $2 END';
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);

-- hash, colocated; a and b have rows without a key
CREATE TABLE a (id int, n int, t text, d date, e mood, arr int[], num numeric(10, 2), f float8, ok bool);
CREATE TABLE b (id int, k int, t text, d date, e mood, v int, num numeric(10, 2), at timestamp, span int4range);
CREATE TABLE u (id int, k int, t text DEFAULT 'none', v int CHECK (v < 1000), d date, PRIMARY KEY (id, k));
-- hash, by a text
CREATE TABLE c (code text, id int, n int, v bigint, d date, f float8, doc jsonb);
-- by range and by list
CREATE TABLE r (d date NOT NULL, id int, t text, num numeric(10, 2), ok bool);
CREATE TABLE l (t text, id int, v int, e mood, p spot);
-- hash, by an enum
CREATE TABLE m (e mood, id int, n int, f float8, span int4range);
-- hash, by blank-padded characters
CREATE TABLE w (ch char(3), id int, at timestamptz, iv interval, sm small, by bytea, tags text[]);
-- reference and local
CREATE TABLE ref (id int PRIMARY KEY, t text, e mood, n int);
CREATE TABLE loc (id int, t text, n int, d date);
-- no rows
CREATE TABLE empty (id int, n int, t text);
CREATE VIEW busy AS SELECT id, count(*)::int AS n, max(t) AS t FROM a GROUP BY id;
CREATE VIEW pairs AS SELECT a.id, b.k, a.t, b.d FROM a JOIN b ON a.id = b.id WHERE b.v > 0;
CREATE VIEW sealed WITH (security_barrier) AS SELECT id, v, t FROM b WHERE k > 0;
CREATE VIEW united AS SELECT id, n, t, d FROM a UNION ALL SELECT id, k, t, d FROM b WHERE v > 1 UNION ALL SELECT id, n, t, d FROM loc;

-- functions: in PL/pgSQL, volatile, sets, and such that read distributed tables
CREATE FUNCTION grade(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN CASE WHEN $1 > 5 THEN ''high'' WHEN $1 > 1 THEN ''low'' END; END';
CREATE FUNCTION same(int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION evens(int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT * FROM generate_series(0, least($1, 8), 2)';
CREATE FUNCTION how_many(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int FROM a WHERE a.n = $1';
CREATE FUNCTION known(int) RETURNS bool LANGUAGE plpgsql STABLE AS 'BEGIN RETURN EXISTS (SELECT FROM u WHERE u.id = $1); END';
CREATE FUNCTION rows_of(int) RETURNS SETOF b LANGUAGE sql STABLE AS 'SELECT * FROM b WHERE id = $1';
