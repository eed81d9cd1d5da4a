-- Names, types and keys that are out of the ordinary: quoted names, other schemas, keys of every type, columns that
-- were dropped or generated, domains, composites, ranges.
CREATE SCHEMA "My Schema";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE point3 AS (x int, y int, "Z z" text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN "short text" AS varchar(10) COLLATE "C" NOT NULL DEFAULT 'none';
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE "My Schema"."Order" (
    "Order Id" int PRIMARY KEY, "select" text, "Üñí" text DEFAULT 'ü', "a""b" int, "WHERE" mood,
    gone int, kept positive, twice int GENERATED ALWAYS AS ("a""b" * 2) STORED
);
ALTER TABLE "My Schema"."Order" DROP COLUMN gone;
INSERT INTO "My Schema"."Order" ("Order Id", "select", "a""b", "WHERE", kept)
SELECT i, 'row ' || i, i % 5, (enum_range(NULL::mood))[1 + i % 3], 1 + i % 9 FROM generate_series(1, 100) i;
ALTER TABLE "My Schema"."Order" ADD COLUMN late timestamptz DEFAULT '2024-01-01 00:00+00';

-- one table per type of key
CREATE TABLE by_text (k text PRIMARY KEY, v int);
INSERT INTO by_text SELECT CASE WHEN i % 10 = 0 THEN 'Ü' || i ELSE 'key ' || i END, i FROM generate_series(1, 60) i;
INSERT INTO by_text VALUES ('', -1), (' ', -2), ('key 1 ', -3), (E'tab\t', -4), ('quote''', -5), ('\', -6), ('KEY 1', -7);
CREATE TABLE by_varchar (k varchar(10) PRIMARY KEY, v int);
INSERT INTO by_varchar SELECT 'v' || i, i FROM generate_series(1, 30) i;
CREATE TABLE by_char (k char(6) PRIMARY KEY, v int);
INSERT INTO by_char SELECT 'c' || i, i FROM generate_series(1, 30) i;
CREATE TABLE by_uuid (k uuid PRIMARY KEY, v int);
INSERT INTO by_uuid SELECT md5(i::text)::uuid, i FROM generate_series(1, 60) i;
CREATE TABLE by_bigint (k bigint PRIMARY KEY, v int);
INSERT INTO by_bigint SELECT i * 10000000000, i FROM generate_series(-20, 20) i;
CREATE TABLE by_smallint (k smallint PRIMARY KEY, v int);
INSERT INTO by_smallint SELECT i, i FROM generate_series(-20, 20) i;
CREATE TABLE by_numeric (k numeric PRIMARY KEY, v int);
INSERT INTO by_numeric SELECT i / 4.0, i FROM generate_series(-20, 20) i;
CREATE TABLE by_float (k float8 PRIMARY KEY, v int);
INSERT INTO by_float SELECT i / 4.0, i FROM generate_series(-20, 20) i;
INSERT INTO by_float VALUES ('NaN', 100), ('Infinity', 101), ('-Infinity', 102);
CREATE TABLE by_date (k date, v int);
INSERT INTO by_date SELECT date '2024-01-01' + i % 40, i FROM generate_series(1, 80) i;
INSERT INTO by_date VALUES (NULL, 1000), ('infinity', 1001);
CREATE TABLE by_time (k timestamptz PRIMARY KEY, v int);
INSERT INTO by_time SELECT timestamptz '2024-01-01 00:00+00' + i * interval '1 hour', i FROM generate_series(1, 60) i;
CREATE TABLE by_enum (k mood, v int);
INSERT INTO by_enum SELECT (enum_range(NULL::mood))[1 + i % 3], i FROM generate_series(1, 30) i;
INSERT INTO by_enum VALUES (NULL, 1000);
CREATE TABLE by_domain (k positive PRIMARY KEY, v int);
INSERT INTO by_domain SELECT i, i FROM generate_series(1, 30) i;
CREATE TABLE by_bool (k bool, v int);
INSERT INTO by_bool SELECT CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END, i FROM generate_series(1, 30) i;
CREATE TABLE by_inet (k inet PRIMARY KEY, v int);
INSERT INTO by_inet SELECT ('10.0.0.' || i)::inet, i FROM generate_series(1, 30) i;
CREATE TABLE by_array (k int[] PRIMARY KEY, v int);
INSERT INTO by_array SELECT ARRAY[i, i % 3], i FROM generate_series(1, 30) i;
CREATE TABLE by_jsonb (k jsonb PRIMARY KEY, v int);
INSERT INTO by_jsonb SELECT jsonb_build_object('a', i), i FROM generate_series(1, 30) i;
CREATE TABLE by_bytea (k bytea PRIMARY KEY, v int);
INSERT INTO by_bytea SELECT decode(lpad(to_hex(i), 2, '0'), 'hex'), i FROM generate_series(0, 40) i;
CREATE TABLE by_interval (k interval PRIMARY KEY, v int);
INSERT INTO by_interval SELECT i * interval '1 hour', i FROM generate_series(0, 40) i;

-- values of every kind
CREATE TABLE kinds (
    id int PRIMARY KEY, b bool, i2 smallint, i8 bigint, n numeric(20, 5), f4 real, f8 float8, t text, vc varchar(20), c char(5),
    "char" "char", nm name, by bytea, d date, tm time, tmz timetz, ts timestamp, tz timestamptz, iv interval, u uuid,
    j json, jb jsonb, x xml, ip inet, cd cidr, mc macaddr, bt bit(4), vb varbit(8), pt point, bx box, ln lseg, pth path,
    pl polygon, cr circle, mn money, tv tsvector, tq tsquery, m mood, p3 point3, p3a point3[], ia int[], ta text[], ma mood[],
    i4r int4range, tzr tstzrange, i4m int4multirange, o oid, dm "short text", pd positive
);
INSERT INTO kinds
SELECT i, i % 2 = 0, i, i * 1000000000000, i / 3.0, i / 3.0, sqrt(i), 'text ' || i, 'vc' || i, 'c' || i,
    chr(64 + i), 'name' || i, decode(md5(i::text), 'hex'), date '2024-01-01' + i, time '10:00' + i * interval '1 minute',
    '10:00+02', timestamp '2024-01-01 10:00' + i * interval '1 hour', timestamptz '2024-01-01 10:00+00' + i * interval '1 day',
    i * interval '1 day 2 hours 3.5 seconds', md5(i::text)::uuid, json_build_object('a', i), jsonb_build_object('b', ARRAY[i, NULL]),
    xmlelement(name e, i), ('192.168.0.' || i)::inet, '10.0.0.0/8', '08:00:2b:01:02:03', i::bit(4), '101', point(i, -i),
    box(point(0, 0), point(i, i)), lseg(point(0, 0), point(i, 1)), path '((0,0),(1,1),(2,0))', polygon '((0,0),(1,1),(2,0))',
    circle(point(i, i), 1.5), i * 1.25, to_tsvector('simple', 'fat cat ' || i), 'cat & !dog', (enum_range(NULL::mood))[1 + i % 3],
    ROW (i, NULL, 'z"' || i)::point3, ARRAY[ROW (i, 1, 'a')::point3, NULL], ARRAY[i, NULL, 3], ARRAY['a,b', NULL, '"', '\'],
    enum_range(NULL::mood), int4range(i, i + 5), tstzrange('2024-01-01 00:00+00', NULL), '{[1,3),[5,7)}', i, 'dom' || i, i
FROM generate_series(1, 20) i;
INSERT INTO kinds (id, dm) VALUES (21, 'nulls'), (22, 'nulls'), (-1, DEFAULT);
CREATE TABLE ci_names (id int PRIMARY KEY, name text COLLATE ci);
INSERT INTO ci_names VALUES (1, 'Ada'), (2, 'ADA'), (3, 'ada'), (4, 'Bob'), (5, NULL), (6, 'bob');
CREATE TABLE "UPPER" (id int PRIMARY KEY, "Name" text);
INSERT INTO "UPPER" VALUES (1, 'one'), (2, 'two');
