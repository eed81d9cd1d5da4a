-- Settings of the session that change how values are read and written, here and on the nodes.
CREATE TYPE mood AS ENUM ('sad', 'größe', 'happy');
CREATE TYPE entry AS (a int, gone text, b text);
ALTER TYPE entry DROP ATTRIBUTE gone;
CREATE DOMAIN checked AS entry CHECK ((VALUE).a > 0);
CREATE TABLE said (id int PRIMARY KEY, t text, names name[], j jsonb, m mood, v tsvector, e entry, es entry[], c checked, at timestamptz, by bytea);
-- only: distributed
SELECT create_distributed_table('said', 'id', shard_count => 4);
CREATE TABLE other (t text, id int);
-- only: distributed
SELECT create_distributed_table('other', 't', shard_count => 3);
INSERT INTO said SELECT i, 'caf' || chr(233) || i, ARRAY['n' || chr(228), NULL], jsonb_build_object('k', chr(246) || i), (enum_range(NULL::mood))[1 + i % 3],
       ('''' || chr(252) || i || '''')::tsvector, ROW(i, chr(233))::entry, ARRAY[ROW(i, 'x')::entry, NULL], ROW(i, chr(228))::entry, timestamptz '2024-03-10 05:00+00' + i * interval '5 hours', '\x5c00ff'
FROM generate_series(1, 12) i;
INSERT INTO other SELECT 'caf' || chr(233) || i, i FROM generate_series(1, 6) i;

SET client_encoding = 'LATIN1';
SELECT * FROM said ORDER BY id;
SELECT * FROM said WHERE id = 3;
SELECT id, j ->> 'k', length(j ->> 'k'), ascii(j ->> 'k'), names[1], length(names[1]::text), m FROM said ORDER BY id;
SELECT (SELECT jsonb_agg(j ORDER BY id) FROM said) @> '[{"k": "x"}]', max(m) FROM said;
SELECT a.id, b.id FROM said a JOIN other b ON a.t = b.t ORDER BY 1, 2;
SELECT id FROM said WHERE t IN (SELECT o.t FROM other o WHERE o.id < 4) ORDER BY id;
SELECT id FROM said WHERE t = ANY (SELECT array_agg(s) FROM (SELECT chr(233) s) x) OR m > 'sad' ORDER BY id;
INSERT INTO said (id, t, j, names, m, v, e) SELECT id + 100, t, j || jsonb_build_object('n', chr(233)), names, m, v, e FROM said WHERE id < 4;
INSERT INTO said (id, t, j, names, es) VALUES (201, 'é', '{"é": 1}', '{é}', ARRAY[ROW(1, 'é')::entry]), (202, chr(233), jsonb_build_object('z', chr(233)), NULL, NULL);
INSERT INTO said (id, t, j, names, m, v) VALUES (203, 'é', jsonb_build_object('é', chr(233)), ARRAY[chr(233)], 'happy', to_tsvector('simple', chr(233) || 'a'));
UPDATE said SET j = jsonb_build_object('u', chr(250)), t = (SELECT max(o.t) FROM other o WHERE o.id = said.id) WHERE id < 3;
SELECT id, t, length(t), j::text, length(j::text), names, m, v, e, es FROM said WHERE id < 3 OR id > 100 ORDER BY id;
RESET client_encoding;
SELECT id, t, length(t), j::text, length(j::text), names, m, v, e, es FROM said WHERE id < 3 OR id > 100 ORDER BY id;

SET array_nulls = off;
SELECT id, names, es FROM said ORDER BY id;
SELECT es, names FROM said WHERE id = 2;
SELECT id FROM said WHERE names = ARRAY['n' || chr(228), NULL]::name[] ORDER BY id;
SELECT '{NULL,"NULL",x}'::text[], ARRAY['NULL', NULL], count(*) FROM said WHERE 'NULL' = ANY ('{NULL}'::text[]);
UPDATE said SET es = ARRAY[NULL, ROW(id, 'NULL')::entry], names = '{NULL,a}' WHERE id < 5;
SELECT id, es, es[1] IS NULL, names, names[1] IS NULL FROM said WHERE id < 5 ORDER BY id;
RESET array_nulls;

SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT id, 'a\\b', t || '\\' FROM said WHERE by = '\\x5c00ff' AND id < 3 ORDER BY id;
UPDATE said SET t = 'it\'s \\' || id WHERE id IN (1, 2, 3) RETURNING t;
SELECT id FROM said WHERE t LIKE 'it%\\\\1' OR t = 'it\'s \\2' ORDER BY id;
RESET standard_conforming_strings;

SET bytea_output = 'escape';
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'America/New_York';
SELECT id, by, by::text, at, at::text, at::date::text FROM said WHERE id < 4 ORDER BY id;
SELECT at::date, count(*), min(at::text) FROM said WHERE id < 100 GROUP BY 1 ORDER BY 1;
INSERT INTO said (id, at, by) VALUES (300, '02/01/2024 10:00', '\\\001') RETURNING at, by;
SELECT id FROM said WHERE at >= '10/03/2024 03:30' AND at < '12/03/2024' ORDER BY id;
BEGIN;
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT id, at::text FROM said WHERE id = 1;
SAVEPOINT s;
SET LOCAL DateStyle = 'German';
SELECT max(at::text) FROM said WHERE id < 3;
ROLLBACK TO s;
SELECT max(at::text) FROM said WHERE id < 3;
COMMIT;
SELECT max(at::text) FROM said WHERE id < 3;
DROP TABLE said, other;
DROP DOMAIN checked;
DROP TYPE entry;
DROP TYPE mood;
