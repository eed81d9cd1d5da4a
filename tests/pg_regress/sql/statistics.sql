-- ANALYZE and VACUUM of distributed tables: sizes and statistics here are those of all shards, and so are estimates.
CREATE SCHEMA counted;
SET search_path = counted;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 6000000;
CREATE TABLE plain (tenant_id int, id int, kind text, tags text[], price numeric, day date, body text, words tsvector, span int4range);
INSERT INTO plain
SELECT i % 200, i, (ARRAY['red', 'green', 'blue'])[1 + i % 3], ARRAY['t' || i % 5, 't' || i % 7], i / 7.0,
       CASE WHEN i % 4 > 0 THEN date '2024-01-01' + i % 365 END,
       CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5(i::text || g), '') FROM generate_series(1, 200) g) ELSE 'short' END,
       to_tsvector('english', 'word' || i % 20), int4range(i, i + 10)
FROM generate_series(1, 12000) i;
CREATE INDEX ON plain (upper(kind));
CREATE TABLE spread (LIKE plain);
CREATE INDEX ON spread (upper(kind));
INSERT INTO spread SELECT * FROM plain;
SELECT create_distributed_table('spread', 'tenant_id', shard_count => 8);
ANALYZE plain;

-- statistics come with the rows, and differ from plain ones no more than two samples do
CREATE VIEW differences AS
SELECT attname
FROM pg_stats p JOIN pg_stats s USING (schemaname, attname)
WHERE schemaname = 'counted' AND p.tablename ~ '^plain' AND s.tablename ~ '^spread'
  AND (abs(p.null_frac - s.null_frac) > 0.02
       OR p.avg_width IS DISTINCT FROM s.avg_width
       OR abs(p.n_distinct - s.n_distinct) > 0.1 * abs(p.n_distinct)
       OR (cardinality(p.most_common_freqs) < 10
           AND (SELECT array_agg(v ORDER BY v) FROM unnest(p.most_common_vals::text::text[]) v)
               IS DISTINCT FROM (SELECT array_agg(v ORDER BY v) FROM unnest(s.most_common_vals::text::text[]) v))
       OR (SELECT array_agg(v ORDER BY v) FROM unnest(p.most_common_elems::text::text[]) v)
          IS DISTINCT FROM (SELECT array_agg(v ORDER BY v) FROM unnest(s.most_common_elems::text::text[]) v)
       OR cardinality(p.histogram_bounds) IS DISTINCT FROM cardinality(s.histogram_bounds)
       OR s.correlation IS NOT NULL);
TABLE differences;
SELECT count(*) FROM pg_stats WHERE schemaname = 'counted' AND tablename ~ '^spread';
SELECT relname, reltuples, relpages > 100 AS pages FROM pg_class WHERE relname IN ('plain', 'spread') ORDER BY 1;

-- after changes: some columns, then all
UPDATE spread SET kind = 'yellow', day = NULL WHERE id % 2 = 0;
ANALYZE spread (kind);
SELECT most_common_vals[1:1] FROM (SELECT most_common_vals::text::text[] FROM pg_stats WHERE tablename = 'spread' AND attname = 'kind') kind;
SELECT null_frac > 0.4 AS now FROM pg_stats WHERE tablename = 'spread' AND attname = 'day';
BEGIN;
ANALYZE spread;
SELECT null_frac > 0.4 AS now FROM pg_stats WHERE tablename = 'spread' AND attname = 'day';
ROLLBACK;
SELECT null_frac > 0.4 AS now FROM pg_stats WHERE tablename = 'spread' AND attname = 'day';
VACUUM (ANALYZE) plain, spread;
SELECT null_frac > 0.4 AS now FROM pg_stats WHERE tablename = 'spread' AND attname = 'day';
ALTER TABLE plain ALTER day SET STATISTICS 0;
ANALYZE spread (nothing);
ANALYZE spread (kind, kind);
BEGIN;
VACUUM spread;
ROLLBACK;

-- the empty relation here never counts
ANALYZE;
VACUUM;
VACUUM (FULL, FREEZE) spread;
VACUUM (PARALLEL 0, INDEX_CLEANUP auto, SKIP_LOCKED, ANALYZE) spread (kind);
SELECT relname, reltuples FROM pg_class WHERE relname IN ('plain', 'spread') ORDER BY 1;

-- growth
INSERT INTO spread SELECT * FROM plain;
SELECT citus_update_table_statistics('spread');
SELECT reltuples BETWEEN 20000 AND 30000 AS grown FROM pg_class WHERE relname = 'spread';
TRUNCATE spread;
SELECT reltuples FROM pg_class WHERE relname = 'spread';
INSERT INTO spread SELECT * FROM plain;
VACUUM ANALYZE spread;
TABLE differences;

-- reference tables are analyzed here and on the nodes
CREATE TABLE colours (kind text PRIMARY KEY, nice bool);
INSERT INTO colours VALUES ('red', true), ('green', true), ('blue', false);
SELECT create_reference_table('colours');
ANALYZE colours;
VACUUM ANALYZE colours, spread;
SELECT reltuples FROM pg_class WHERE relname = 'colours';

-- estimates of leaves, as PostgreSQL makes them for the plain table
CREATE FUNCTION estimated(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END $$;
SET shard_ext.join_strategy = pull;
CREATE VIEW estimates AS
SELECT query, round(estimated(replace(query, 'TABLE', 'spread')) / estimated(replace(query, 'TABLE', 'plain')), 1) AS of_plain
FROM (VALUES ('SELECT * FROM TABLE'),
             ('SELECT * FROM TABLE WHERE kind = ''red'''),
             ('SELECT * FROM TABLE WHERE upper(kind) = ''RED'''),
             ('SELECT * FROM TABLE WHERE tags @> ''{t1}'''),
             ('SELECT * FROM TABLE WHERE day IS NULL'),
             ('SELECT * FROM TABLE WHERE price < 100'),
             ('SELECT kind, count(*) FROM TABLE GROUP BY kind'),
             ('SELECT tenant_id, count(*) FROM TABLE GROUP BY tenant_id'),
             ('SELECT DISTINCT tenant_id, kind FROM TABLE'),
             ('SELECT * FROM TABLE a JOIN TABLE b USING (tenant_id)'),
             ('SELECT * FROM TABLE a JOIN TABLE b USING (id)'),
             ('SELECT * FROM TABLE a JOIN colours USING (kind) WHERE nice'),
             ('SELECT * FROM (SELECT kind, max(id) AS id FROM TABLE GROUP BY kind) a JOIN TABLE b USING (id)'),
             ('SELECT * FROM TABLE WHERE id IN (SELECT id FROM TABLE WHERE price < 10)')) AS q (query);
SELECT * FROM estimates WHERE of_plain NOT BETWEEN 0.8 AND 1.2;
RESET shard_ext.join_strategy;
SELECT count(*) FROM estimates;

-- nodes group where that saves rows; many groups are not spread over parallel workers there
CREATE TABLE many (id int, pair int, kind int);
SELECT create_distributed_table('many', 'kind', shard_count => 4);
INSERT INTO many SELECT i, i / 8, i % 10 FROM generate_series(1, 40000) i;
ANALYZE many;
CREATE FUNCTION sent(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (VERBOSE) ' || query LOOP
        IF line ~ 'Remote SQL' THEN
            RETURN NEXT trim(line);
        END IF;
    END LOOP;
END $$;
SELECT sent('SELECT count(DISTINCT id) FROM many');
SELECT sent('SELECT id, count(*) FROM many GROUP BY id');
SELECT sent('SELECT count(DISTINCT pair) FROM many');
SELECT sent('SELECT count(DISTINCT pair), count(DISTINCT pair / 2) FROM many');
SELECT sent('SELECT pair, count(*) FROM many GROUP BY pair');
SELECT sent('SELECT id % 10, count(*) FROM many WHERE kind > 3 AND id < 100 GROUP BY id % 10');
SELECT count(DISTINCT id), count(DISTINCT pair), (SELECT count(*) FROM (SELECT pair FROM many GROUP BY pair) p) FROM many;

-- of values that subqueries look for, nodes send each once where that saves much, or only those that are asked for
SELECT sent('SELECT DISTINCT pair FROM many');
SELECT sent('SELECT DISTINCT id FROM many');
SELECT sent('SELECT count(*) FROM many m WHERE NOT EXISTS (SELECT FROM many o WHERE o.pair = m.id AND o.kind > 3)');
SELECT sent('SELECT count(*) FROM many m WHERE NOT EXISTS (SELECT FROM many o WHERE o.id = m.pair)');
SELECT sent('SELECT count(*) FROM many WHERE id IN (SELECT pair FROM many)');
SELECT sent('SELECT count(*) FROM many WHERE id NOT IN (SELECT pair FROM many)');
SELECT sent('SELECT * FROM colours WHERE length(kind) IN (SELECT pair FROM many WHERE id > 10)');
SELECT sent('SELECT * FROM many WHERE kind IN (SELECT tenant_id FROM spread WHERE id < 100) AND pair IN (SELECT id FROM spread WHERE id < 10)');
SELECT count(*) FROM many m WHERE NOT EXISTS (SELECT FROM many o WHERE o.pair = m.id AND o.kind > 3);
SELECT kind FROM colours WHERE length(kind) IN (SELECT pair FROM many WHERE id > 30) ORDER BY kind;

-- who may
CREATE ROLE counting_stranger;
GRANT USAGE ON SCHEMA counted TO counting_stranger;
SET ROLE counting_stranger;
ANALYZE spread;
VACUUM spread;
SELECT citus_update_table_statistics('spread');
SELECT shard_ext.table_size('spread') > 0 AS anyone_may;
RESET ROLE;

-- sizes
SELECT citus_relation_size('spread') = sum(relpages) * 8192 AS relation,
       citus_table_size('spread') > citus_relation_size('spread') AS with_toast,
       citus_total_relation_size('spread') > citus_table_size('spread') AS with_indexes,
       citus_total_relation_size('spread') = shard_ext.table_size('spread') AS total,
       shard_ext.table_size('spread') = (SELECT size FROM shard_ext.tables WHERE table_name = 'spread'::regclass) AS view
FROM pg_class WHERE relname = 'spread';
SELECT citus_relation_size('spread_upper_idx') > 0 AS of_an_index, shard_ext.table_size('plain') = pg_total_relation_size('plain') AS local,
       citus_relation_size('colours') = 2 * pg_relation_size('colours') AS copies,
       citus_total_relation_size('spread', fail_on_error => false) > 0 AS lenient;
SELECT shard_ext.table_size(NULL), citus_table_size(NULL), citus_relation_size(1), citus_total_relation_size('spread', NULL);

-- an empty table may have got rows since it was analysed
CREATE TABLE hollow (k int, v text);
SELECT create_distributed_table('hollow', 'k');
SELECT estimated('TABLE hollow') AS never_analysed \gset
ANALYZE hollow;
SELECT reltuples FROM pg_class WHERE relname = 'hollow';
SELECT estimated('TABLE hollow') = :never_analysed AND :never_analysed > 100 AS supposed;

SET client_min_messages = warning;
REVOKE USAGE ON SCHEMA counted FROM counting_stranger;
DROP ROLE counting_stranger;
DROP SCHEMA counted CASCADE;
