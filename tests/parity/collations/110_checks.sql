-- Nodes evaluate constraints, generated columns and unique indexes by their own default collations: refused where these
-- depend on it, the coordinator's where they name theirs.
CREATE TABLE small (id int, w text CHECK (w > 'Z'));
CREATE TABLE upper (id int, w text, u text GENERATED ALWAYS AS (upper(w)) STORED);
CREATE TABLE lower (id int, w text);
CREATE UNIQUE INDEX ON lower (id, lower(w));
CREATE TABLE part (id int, w text);
CREATE UNIQUE INDEX ON part (id) WHERE w > 'a';
CREATE DOMAIN letters AS text CHECK (VALUE ~ '^[[:alpha:]]+$');
CREATE DOMAIN few AS letters CHECK (length(VALUE) < 9);
CREATE TABLE typed (id int, w few);
-- refused: 0A000
SELECT create_distributed_table('small', 'id');
-- refused: 0A000
SELECT create_reference_table('small');
-- refused: 0A000
SELECT create_distributed_table('upper', 'id');
-- refused: 0A000
SELECT create_distributed_table('lower', 'id');
-- refused: 0A000
SELECT create_distributed_table('part', 'id');
-- refused: 0A000
SELECT create_distributed_table('typed', 'id');
CREATE TABLE named (id int, w text COLLATE "C" CHECK (w > 'Z'), u text GENERATED ALWAYS AS (upper(v COLLATE "de-x-icu")) STORED, v text CHECK (v IN ('ä', 'b', 'ß') AND length(v) < 9),
                    doc jsonb CHECK (doc ->> 'k' <> ''), at timestamp CHECK (date_trunc('day', at) < '2100-01-01'), UNIQUE (id, v));
CREATE UNIQUE INDEX ON named (id, lower(w));
CREATE INDEX ON named (lower(v));
-- only: distributed
SELECT create_distributed_table('named', 'id', shard_count => 4);
INSERT INTO named (id, w, v, doc, at) SELECT i, (ARRAY['a', 'ä', 'z'])[1 + i % 3], (ARRAY['ä', 'b', 'ß'])[1 + i % 3], '{"k": "v"}', '2024-01-05' FROM generate_series(1, 12) i;
INSERT INTO named (id, w) VALUES (1, 'A');
INSERT INTO named (id, v) VALUES (1, 'B');
INSERT INTO named (id, w) VALUES (1, 'ä');
INSERT INTO named (id, doc) VALUES (1, '{"k": ""}');
SELECT * FROM named ORDER BY id;
SELECT id FROM named WHERE lower(v) = 'ä' ORDER BY id;
SELECT doc ->> 'k', date_trunc('month', at), count(*) FROM named GROUP BY 1, 2 ORDER BY 1, 2;
DROP TABLE small, upper, lower, part, typed, named;
DROP DOMAIN few, letters;
