-- WITH clauses that insert beside parts that read the table, row by row too; RETURNING that reads it.
CREATE TABLE wi (k int, id int, v text, w int GENERATED ALWAYS AS (k * 10) STORED, PRIMARY KEY (k, id));
CREATE TABLE wo (k int PRIMARY KEY, n bigint, t text DEFAULT 'd');
CREATE TABLE wl (k int, t text);
INSERT INTO wi SELECT i % 7, i, 'v' || i FROM generate_series(1, 40) i;
INSERT INTO wo SELECT i, i FROM generate_series(1, 5) i;
INSERT INTO wl SELECT i, 'l' || i FROM generate_series(1, 5) i;
-- only: distributed
SELECT create_distributed_table('wi', 'k', shard_count => 4);
-- only: distributed
SELECT create_distributed_table('wo', 'k', shard_count => 3);
WITH i AS (INSERT INTO wi VALUES (1, 100, 'a'), (2, 101, 'b') RETURNING *) SELECT count(*) FROM wi WHERE k > (SELECT min(k) FROM i);
WITH i AS (INSERT INTO wi VALUES (1, 102, 'a'), (2, 103, 'v3') RETURNING *) SELECT i.*, (SELECT count(*) FROM wi WHERE wi.v = i.v) FROM i;
WITH i AS (INSERT INTO wi VALUES (1, 104, 'a'), (2, 105, 'v3') RETURNING *) SELECT i.*, (SELECT count(*) FROM wi WHERE wi.k = i.k) FROM i;
WITH i AS (INSERT INTO wi SELECT k + 1, id + 200, v FROM wi WHERE id < 10 RETURNING *) SELECT wl.*, (SELECT count(*) FROM i WHERE i.k = wl.k), (SELECT count(*) FROM wi WHERE wi.k = wl.k) FROM wl;
WITH i AS (INSERT INTO wi SELECT k + 1, id + 300, v FROM wi WHERE id < 10), j AS (INSERT INTO wi SELECT k, id + 400, v FROM wi WHERE id < 5 RETURNING *) SELECT j.*, (SELECT max(id) FROM wi WHERE wi.k = j.k) FROM j;
WITH i AS (INSERT INTO wi VALUES (1, 500, 'x') RETURNING k, (SELECT count(*) FROM wi z WHERE z.k >= wi.k) AS n) INSERT INTO wo SELECT k + 20, n FROM i RETURNING *, (SELECT count(*) FROM wo);
WITH i AS (INSERT INTO wi VALUES (1, 501, 'x') RETURNING *), u AS (UPDATE wo SET n = (SELECT count(*) FROM wi WHERE wi.k = wo.k) WHERE k < 4 RETURNING *) SELECT i.id, u.* FROM i, u;
WITH i AS (INSERT INTO wi VALUES (1, 502, 'x') RETURNING *), d AS (DELETE FROM wi WHERE id IN (1, 502) RETURNING *) SELECT (SELECT count(*) FROM wi), (SELECT count(*) FROM i), (SELECT count(*) FROM d);
WITH i AS (INSERT INTO wi VALUES (1, 2, 'x') RETURNING *) SELECT * FROM i WHERE EXISTS (SELECT FROM wi WHERE wi.id = i.id);
WITH i AS (INSERT INTO wi VALUES (2, 2, 'x') RETURNING *) SELECT * FROM i WHERE EXISTS (SELECT FROM wi WHERE wi.id = i.id);
WITH i AS (INSERT INTO wi VALUES (3, 600, 'x') RETURNING *) UPDATE wi SET v = 'beside' WHERE EXISTS (SELECT FROM i WHERE i.k = wi.k);
WITH i AS (INSERT INTO wi VALUES (3, 601, 'x') RETURNING *) UPDATE wi SET v = 'min' WHERE k = (SELECT min(k) FROM i) RETURNING wi.id;
WITH i AS (INSERT INTO wi VALUES (4, 602, 'x') RETURNING *) DELETE FROM wi USING i WHERE wi.k = i.k AND wi.id > 30 RETURNING wi.*;
WITH i AS (INSERT INTO wi VALUES (5, 603, 'x') RETURNING *) INSERT INTO wi SELECT k, id + 100, (SELECT string_agg(z.id::text, ',' ORDER BY z.id) FROM wi z WHERE z.k = i.k) FROM i RETURNING *;
-- refused: 0A000
WITH i AS (INSERT INTO wi VALUES (5, 604, 'x') RETURNING *) INSERT INTO wl SELECT k, (SELECT count(*) FROM wi z WHERE z.k = i.k)::text FROM i;
WITH i AS (INSERT INTO wl VALUES (5, 'y') RETURNING *) INSERT INTO wi SELECT k, 605, (SELECT count(*) FROM wi z WHERE z.k = i.k)::text FROM i RETURNING *;
-- with conflicts
WITH i AS (INSERT INTO wo VALUES (1, 1), (31, 1) ON CONFLICT DO NOTHING RETURNING *) SELECT i.*, (SELECT count(*) FROM wo WHERE wo.k <= i.k) FROM i;
WITH i AS (INSERT INTO wo VALUES (32, 1), (1, 5) ON CONFLICT (k) DO NOTHING RETURNING *) SELECT i.*, (SELECT count(*) FROM wo WHERE wo.k <= i.k) FROM i;
WITH i AS (INSERT INTO wo VALUES (59, 1), (59, 2), (1, 5) ON CONFLICT (k) DO NOTHING RETURNING *) SELECT * FROM i;
-- refused: 0A000
WITH i AS (INSERT INTO wo VALUES (35, 1), (35, 2), (1, 5) ON CONFLICT (k) DO NOTHING RETURNING *) SELECT i.*, (SELECT count(*) FROM wo WHERE wo.k <= i.k) FROM i;
WITH i AS (INSERT INTO wo VALUES (1, 1), (33, 1) ON CONFLICT (k) DO UPDATE SET n = wo.n + 100 RETURNING *) SELECT i.*, (SELECT sum(n) FROM wo WHERE wo.k <= i.k) FROM i;
WITH i AS (INSERT INTO wo VALUES (1, 1), (1, 1) ON CONFLICT (k) DO UPDATE SET n = wo.n + 100 RETURNING *) SELECT i.*, (SELECT sum(n) FROM wo WHERE wo.k <= i.k) FROM i;
WITH i AS (INSERT INTO wo VALUES (1, 1), (34, 1) ON CONFLICT (k) DO UPDATE SET n = wo.n + 100 RETURNING *) SELECT * FROM i;
-- RETURNING
INSERT INTO wi VALUES (1, 700, 'r') RETURNING *, (SELECT count(*) FROM wi z WHERE z.k = wi.k), (SELECT max(id) FROM wi z);
INSERT INTO wi SELECT k, k + 700, t FROM wl WHERE k < 4 RETURNING *, (SELECT count(*) FROM wi z WHERE z.k = wi.k AND z.id < 700), (SELECT t FROM wl WHERE wl.k = wi.k LIMIT 1), wi;
INSERT INTO wo (k) VALUES (40) RETURNING *, (SELECT n FROM wo z WHERE z.k = wo.k - 37), EXISTS (SELECT FROM wi WHERE wi.k = wo.k);
INSERT INTO wo (k) VALUES (1), (41) ON CONFLICT DO NOTHING RETURNING *, (SELECT n FROM wo z WHERE z.k = wo.k - 38);
INSERT INTO wo (k) VALUES (1) RETURNING (SELECT n FROM wo z WHERE z.k = wo.k - 37);
INSERT INTO wo (k) VALUES (NULL) RETURNING (SELECT n FROM wo z WHERE z.k = wo.k - 37);
WITH q AS (SELECT 42 AS k) INSERT INTO wo (k, n) SELECT k, 5 FROM q RETURNING *, (SELECT count(*) FROM wo z WHERE z.k < wo.k), (SELECT k FROM q WHERE q.k = wo.k);
-- views with check options
CREATE VIEW wv AS SELECT k, n FROM wo WHERE n < 50 WITH CHECK OPTION;
WITH i AS (INSERT INTO wv VALUES (50, 5), (51, 6) RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wv VALUES (52, 5), (53, 60) RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wv VALUES (50, 5), (54, 7) ON CONFLICT DO NOTHING RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wv VALUES (50, 5), (55, 7) ON CONFLICT (k) DO UPDATE SET n = wv.n + excluded.n RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wv VALUES (50, 5), (56, 7) ON CONFLICT (k) DO UPDATE SET n = wv.n + 100 RETURNING *) SELECT * FROM i;
INSERT INTO wv VALUES (57, 5) RETURNING *, (SELECT count(*) FROM wv z WHERE z.k <= wv.k);
INSERT INTO wv VALUES (58, 500) RETURNING *, (SELECT count(*) FROM wv z WHERE z.k <= wv.k);
-- row security
-- only: plain
CREATE ROLE parity_wi;
GRANT ALL ON wi, wo, wl TO parity_wi;
CREATE POLICY p ON wl FOR ALL TO parity_wi USING (true);
-- only: plain
ALTER TABLE wi ENABLE ROW LEVEL SECURITY;
-- only: plain
CREATE POLICY p ON wi FOR ALL TO parity_wi USING (k < 5) WITH CHECK (id < 2000);
-- only: distributed
SELECT undistribute_table('wi');
-- only: distributed
ALTER TABLE wi ENABLE ROW LEVEL SECURITY;
-- only: distributed
CREATE POLICY p ON wi FOR ALL TO parity_wi USING (k < 5) WITH CHECK (id < 2000);
-- only: distributed
SELECT create_distributed_table('wi', 'k', shard_count => 4);
SET ROLE parity_wi;
WITH i AS (INSERT INTO wi VALUES (1, 900, 'p'), (2, 901, 'p') RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wi VALUES (6, 902, 'p')) SELECT count(*) FROM wi;
WITH i AS (INSERT INTO wi VALUES (6, 903, 'p') RETURNING *) SELECT count(*) FROM i;
WITH i AS (INSERT INTO wi VALUES (1, 2900, 'p') RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wi SELECT k, id + 1000, v FROM wi WHERE id < 10 RETURNING *) INSERT INTO wo SELECT id, k FROM i;
WITH i AS (INSERT INTO wi VALUES (1, 900, 'q'), (1, 904, 'q') ON CONFLICT DO NOTHING RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wi VALUES (1, 900, 'q'), (1, 905, 'q') ON CONFLICT (k, id) DO UPDATE SET v = excluded.v RETURNING *) SELECT * FROM i;
WITH i AS (INSERT INTO wi VALUES (1, 2905, 'q') ON CONFLICT (k, id) DO UPDATE SET v = excluded.v RETURNING *) SELECT * FROM i;
INSERT INTO wi VALUES (1, 906, 'q') RETURNING *, (SELECT count(*) FROM wi z WHERE z.k = wi.k);
INSERT INTO wi VALUES (1, 2906, 'q') RETURNING *, (SELECT count(*) FROM wi z WHERE z.k = wi.k);
RESET ROLE;
SELECT * FROM wi ORDER BY k, id;
SELECT * FROM wo ORDER BY k;
SELECT * FROM wl ORDER BY k, t;
DROP TABLE wi, wl;
DROP TABLE wo CASCADE;
-- only: distributed
DROP ROLE parity_wi;
