-- Keys, uniqueness and joins of texts that are equal though their letters differ.
CREATE COLLATION ci (PROVIDER=icu, locale='und-u-ks-level2', DETERMINISTIC=FALSE);
CREATE TABLE t (k text COLLATE ci, n int, w text COLLATE ci, PRIMARY KEY (k));
CREATE TABLE v (k text COLLATE ci, n int, x text, UNIQUE (k, x));
CREATE TABLE f (k text, w text COLLATE ci, n int, UNIQUE (k, w));
-- only: distributed
SELECT create_distributed_table('t', 'k', shard_count => 8);
-- only: distributed
SELECT create_distributed_table('v', 'k', colocate_with => 't');
-- only: distributed
SELECT create_distributed_table('f', 'k', shard_count => 8);
INSERT INTO t SELECT chr(97 + i), i, chr(65 + i % 5) FROM generate_series(0, 20) i;
INSERT INTO t VALUES ('B', 100, 'x');
INSERT INTO t VALUES ('Zz', 100, 'x') ON CONFLICT (k) DO NOTHING;
INSERT INTO t VALUES ('zZ', 101, 'y') ON CONFLICT (k) DO UPDATE SET n = t.n + 1000 RETURNING *;
INSERT INTO v SELECT chr(65 + i % 26), i, 'x' || i FROM generate_series(0, 60) i;
INSERT INTO v SELECT lower(k), n, upper(x) FROM v ON CONFLICT DO NOTHING;
INSERT INTO f SELECT chr(97 + i % 3), chr(65 + i), i FROM generate_series(0, 20) i;
INSERT INTO f VALUES ('b', 'b', 7);
INSERT INTO f VALUES ('a', 'B', 7);
SELECT * FROM t WHERE k = 'C';
SELECT * FROM t WHERE k IN ('C', 'd', 'ZZ') ORDER BY n;
SELECT t.n, count(*) FROM t JOIN v USING (k) GROUP BY t.n ORDER BY 1;
SELECT lower(k), count(*), sum(n) FROM v GROUP BY k ORDER BY 2, 3, 1;
SELECT count(DISTINCT k), count(DISTINCT x) FROM v;
SELECT count(*) FROM f JOIN t ON f.w = t.k;
SELECT count(*) FROM f JOIN t ON f.k = t.k COLLATE "default";
SELECT count(*) FROM f JOIN t ON f.k COLLATE ci = t.k;
SELECT count(*) FROM f a JOIN f b ON a.w = b.w;
SELECT count(*) FROM f WHERE w NOT IN (SELECT k FROM t);
SELECT count(*) FROM f WHERE w IN (SELECT w FROM t);
SELECT count(*) FROM f WHERE EXISTS (SELECT FROM t WHERE t.w = f.w AND t.n > f.n);
SET shard_ext.join_strategy = repartition;
SELECT count(*) FROM f JOIN t ON f.w = t.k;
SELECT count(*) FROM f JOIN t ON f.w = t.w;
SELECT count(*) FROM f a JOIN f b ON a.w = b.w;
SELECT count(*) FROM f WHERE w IN (SELECT w FROM t);
SELECT count(*) FROM f a JOIN t ON a.k = t.k JOIN f b ON b.k = t.k COLLATE "default" ;
RESET shard_ext.join_strategy;
UPDATE t SET n = 5 WHERE k = 'E';
DELETE FROM v WHERE k = 'c';
SELECT count(*), sum(n) FROM v;
UPDATE t SET k = upper(k) WHERE n < 4;
SELECT n FROM t WHERE k = 'a';
UPDATE t SET k = 'XX' WHERE k = 'B';
SELECT n FROM t WHERE k = 'xx';
SELECT min(lower(k)), max(lower(k)) FROM t;
DROP TABLE t, v, f;
DROP COLLATION ci;
