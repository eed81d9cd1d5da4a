-- WITH clauses that write beside each other: changes by what others return, of tables that others read or change.
CREATE TABLE mt(k int, id int, x int, s text, PRIMARY KEY(k, id));
CREATE TABLE mu(o int PRIMARY KEY, k int, v text);
CREATE TABLE mj(id int PRIMARY KEY, state text, prio int, w text);
CREATE TABLE mg(id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE mr(c int PRIMARY KEY, n text);
CREATE TABLE ml(id int PRIMARY KEY, v text);
-- only: distributed
SELECT create_distributed_table('mt', 'k', shard_count => 6);
-- only: distributed
SELECT create_distributed_table('mu', 'o', shard_count => 4);
-- only: distributed
SELECT create_distributed_table('mj', 'id', shard_count => 4);
-- only: distributed
SELECT create_distributed_table('mg', 'id', shard_count => 4);
-- only: distributed
SELECT create_reference_table('mr');
INSERT INTO mt SELECT i % 40, i, i % 7, 's' || i FROM generate_series(1, 400) i;
INSERT INTO mu SELECT i, i % 40, 'u' || i FROM generate_series(1, 100) i;
INSERT INTO mj SELECT i, 'new', i % 3, 'w' || i FROM generate_series(1, 200) i;
INSERT INTO mg SELECT i, i FROM generate_series(1, 20) i;
INSERT INTO mr SELECT i, 'r' || i FROM generate_series(1, 10) i;
INSERT INTO ml SELECT i, 'l' || i FROM generate_series(1, 10) i;
-- by what another returns
BEGIN;
WITH a AS (UPDATE mt SET x = x + 10 WHERE id < 30 RETURNING *), b AS (DELETE FROM mu USING a WHERE mu.k = a.k AND mu.o < 60 RETURNING mu.*, a.id) SELECT a.*, b.o FROM a LEFT JOIN b ON b.id = a.id ORDER BY a.k, a.id, b.o;
SELECT * FROM mt;
SELECT * FROM mu;
ROLLBACK;
BEGIN;
WITH moved AS (DELETE FROM mt WHERE x = 3 RETURNING *) UPDATE mu SET v = v || moved.s FROM moved WHERE moved.id = mu.o RETURNING mu.*, moved.k;
SELECT * FROM mt;
SELECT * FROM mu;
WITH moved AS (DELETE FROM mt WHERE x = 4 RETURNING *) DELETE FROM mu USING moved WHERE moved.id = mu.o;
SELECT * FROM mu;
WITH gone AS (DELETE FROM mt WHERE x = 5) UPDATE mu SET v = 'z' WHERE o = 7;
WITH gone AS (DELETE FROM mt WHERE x = 6) UPDATE mu SET v = 'y' WHERE o > 7;
WITH gone AS (DELETE FROM mt WHERE x = 0) DELETE FROM mu WHERE o > 27;
SELECT * FROM mt;
SELECT * FROM mu;
ROLLBACK;
WITH a AS (UPDATE mg SET n = n + 1 WHERE id < 5 RETURNING *), b AS (UPDATE mg SET n = a.twice FROM a WHERE mg.id = a.id + 10 RETURNING mg.*) SELECT a.*, b.* FROM a, b WHERE b.id = a.id + 10;
SELECT * FROM mg;
-- nobody sees what others have done
BEGIN;
WITH d AS (DELETE FROM mt WHERE x = 2 RETURNING id) UPDATE mt SET x = (SELECT count(*) FROM mt) WHERE x = 3;
SELECT * FROM mt;
WITH d AS (DELETE FROM mt WHERE x = 4 RETURNING id) UPDATE mt SET s = 'c' || (SELECT count(*) FROM d) WHERE id IN (SELECT id + 1 FROM d);
SELECT * FROM mt;
WITH d AS (UPDATE mt SET x = 99 WHERE x = 5 RETURNING id, x) SELECT count(*), sum(mt.x), sum(d.x) FROM mt, d WHERE mt.id = d.id;
WITH d AS (UPDATE mt SET x = 98 WHERE x = 99 RETURNING id, x) SELECT mt.id, mt.x, d.x FROM mt, d WHERE mt.id = d.id AND mt.x > (SELECT min(x) FROM d) ORDER BY 1;
WITH d AS (UPDATE mt SET x = 97 WHERE x = 99 OR x = 98 RETURNING id, x) SELECT count(*) FROM mt WHERE mt.x > (SELECT min(x) FROM d);
WITH d AS (UPDATE mt SET x = 96 WHERE x = 97 RETURNING k, id, x) SELECT d.id, (SELECT sum(x) FROM mt WHERE mt.k = d.k) FROM d ORDER BY 1;
WITH d AS (DELETE FROM mt WHERE x = 96 RETURNING k, id), e AS (SELECT count(*) c FROM mt), f AS (UPDATE mu SET v = 'f' || c FROM d, e WHERE mu.o = d.id RETURNING v) SELECT * FROM f;
SELECT * FROM mt;
SELECT * FROM mu;
ROLLBACK;
-- a row is changed once
BEGIN;
WITH a AS (UPDATE mt SET s = 'a' WHERE id < 20 RETURNING id), b AS (UPDATE mt SET s = 'b' WHERE id < 30 RETURNING id) SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b);
SELECT * FROM mt;
WITH a AS (UPDATE mt SET s = 'c' WHERE id < 20), b AS (UPDATE mt SET s = 'd' WHERE id < 30) SELECT 1;
SELECT * FROM mt;
WITH a AS (UPDATE mt SET s = 'e' WHERE id < 20) UPDATE mt SET s = 'f' WHERE id < 15 RETURNING id;
SELECT * FROM mt;
WITH a AS (DELETE FROM mt WHERE id < 20 RETURNING id) UPDATE mt SET s = 'f' WHERE id < 25 RETURNING id;
SELECT * FROM mt;
WITH a AS (UPDATE mt SET k = k + 1 WHERE id BETWEEN 40 AND 50 RETURNING *) DELETE FROM mt USING a WHERE mt.id = a.id + 5 RETURNING mt.*, a.k;
SELECT * FROM mt;
ROLLBACK;
-- reference and local tables
BEGIN;
WITH a AS (UPDATE mr SET n = n || '!' WHERE c < 5 RETURNING *), b AS (UPDATE mt SET s = a.n FROM a WHERE mt.k = a.c RETURNING mt.*) SELECT count(*), max(s) FROM b;
WITH a AS (DELETE FROM ml WHERE id < 4 RETURNING *), b AS (UPDATE mt SET s = a.v FROM a WHERE mt.k = a.id RETURNING mt.k, mt.id) INSERT INTO mr SELECT id + 100, 'x' || k FROM b RETURNING *;
WITH b AS (DELETE FROM mt USING mr WHERE mt.k = mr.c AND mr.c > 7 AND mt.x = 1 RETURNING mt.id), l AS (INSERT INTO ml SELECT id + 1000, s FROM mt WHERE k < 10) SELECT count(*) FROM b;
WITH b AS (DELETE FROM mt USING ml WHERE mt.k = ml.id RETURNING mt.id), l AS (INSERT INTO ml SELECT id + 2000, s FROM mt WHERE k < 10) SELECT count(*) FROM b;
WITH b AS (DELETE FROM mt USING ml WHERE mt.k = ml.id - 1000 RETURNING mt.k) UPDATE ml SET v = 'y' FROM b WHERE b.k = ml.id RETURNING *;
WITH b AS (UPDATE mu SET v = 'q' FROM ml WHERE mu.k = ml.id RETURNING mu.k) UPDATE mr SET n = 'y' || (SELECT count(*) FROM mu WHERE v = 'q') FROM b WHERE b.k = mr.c;
SELECT * FROM mt;
SELECT * FROM mu;
SELECT * FROM mr;
SELECT * FROM ml;
SELECT count(*), max(n) FROM mr JOIN mt ON mt.k = mr.c;
ROLLBACK;
SELECT * FROM mt;
SELECT * FROM mr;
-- a queue
BEGIN;
WITH picked AS (SELECT id FROM mj WHERE state = 'new' ORDER BY prio, id LIMIT 10 FOR UPDATE SKIP LOCKED), upd AS (UPDATE mj SET state = 'run', w = w || '+' FROM picked WHERE mj.id = picked.id RETURNING mj.*) SELECT * FROM upd ORDER BY id;
WITH picked AS (SELECT id FROM mj WHERE state = 'new' ORDER BY prio, id LIMIT 10 FOR UPDATE SKIP LOCKED), upd AS (UPDATE mj SET state = 'run', w = w || '+' FROM picked WHERE mj.id = picked.id RETURNING mj.*), ins AS (INSERT INTO mu SELECT id + 1000, 1, w FROM upd RETURNING o, v) SELECT ins.*, upd.id FROM ins JOIN upd ON upd.id + 1000 = ins.o ORDER BY 1;
SELECT * FROM mj;
SELECT * FROM mu;
COMMIT;
-- with new rows
BEGIN;
WITH ins AS (INSERT INTO mu SELECT id + 500, k, s FROM mt WHERE x = 1 AND id < 40 RETURNING *) UPDATE mt SET s = 'was ' || ins.v FROM ins WHERE ins.o = mt.id + 500 RETURNING mt.*, ins.o;
WITH ins AS (INSERT INTO mt VALUES (1, 5000, 1, 'i'), (2, 5001, 2, 'j') RETURNING *) UPDATE mt SET s = 'upd' FROM ins WHERE mt.k = ins.k RETURNING mt.*;
WITH ins AS (INSERT INTO mt VALUES (1, 5002, 1, 'i'), (2, 5003, 2, 'j') RETURNING *) UPDATE mt SET s = 'upd' WHERE k = (SELECT min(k) FROM ins) RETURNING mt.*;
ROLLBACK;
BEGIN;
WITH upd AS (UPDATE mt SET s = 'n' WHERE k = 1 AND id = 9999 RETURNING *) INSERT INTO mt SELECT 1, 9999, 0, 'new' WHERE NOT EXISTS (SELECT FROM upd) RETURNING *;
WITH upd AS (UPDATE mt SET s = 'n' WHERE id = 9999 RETURNING *) INSERT INTO mt SELECT 1, 9999, 0, 'new' WHERE NOT EXISTS (SELECT FROM upd) RETURNING *;
WITH d AS (DELETE FROM mt WHERE x = 2 RETURNING *), i AS (INSERT INTO mt SELECT k + 1, id, x, s FROM d RETURNING *) SELECT count(*), sum(k), (SELECT count(*) FROM mt) FROM i;
SELECT * FROM mt;
WITH d AS (DELETE FROM mt WHERE x = 1 RETURNING *), i AS (INSERT INTO mt SELECT k, id, x + 1, s || '+' FROM d RETURNING *) SELECT count(*), sum(k) FROM i;
WITH d AS (DELETE FROM mt WHERE x = 3 RETURNING *), i AS (INSERT INTO mt SELECT k, id, x + 1, s || '+' FROM d RETURNING *) SELECT count(*), sum(k), (SELECT count(*) FROM mt WHERE x = 3) FROM i;
WITH d AS (DELETE FROM mt USING mu WHERE mt.id = mu.o AND x = 4 RETURNING mt.*), i AS (INSERT INTO mt SELECT k, id, x + 1, s || '+' FROM d RETURNING *) SELECT count(*), sum(k) FROM i;
WITH d AS (DELETE FROM mt WHERE x = 5 RETURNING *) INSERT INTO mt SELECT k, id, x + 1, s || '-' FROM d WHERE id IN (SELECT id FROM mt) RETURNING x, s;
SELECT * FROM mt;
WITH a AS (UPDATE mt SET x = x + 1 WHERE k = 1 RETURNING *), b AS (INSERT INTO mu SELECT id + 20000, k, s FROM a RETURNING *), c AS (UPDATE mj SET w = b.v FROM b WHERE b.o - 20000 = mj.id RETURNING mj.*), d AS (DELETE FROM ml USING c WHERE ml.id = c.id RETURNING ml.*) SELECT count(*) FROM d;
SELECT * FROM mt;
SELECT * FROM mu;
SELECT * FROM mj;
SELECT * FROM ml;
ROLLBACK;
-- rows that are locked as well
BEGIN;
WITH a AS (UPDATE mj SET w = 'n' WHERE prio = 1) SELECT id, w FROM mj WHERE id < 10 ORDER BY id FOR UPDATE;
WITH a AS (UPDATE mj SET w = 'm' WHERE prio = 1 RETURNING w), b AS (SELECT id, w FROM mj WHERE id < 10 ORDER BY id FOR UPDATE) UPDATE mu SET v = b.w FROM b WHERE mu.o = b.id RETURNING mu.*;
WITH a AS (UPDATE mj SET w = 'l' WHERE prio = 2), i AS (INSERT INTO mj VALUES (900, 'new', 1, 'i') RETURNING id) SELECT mj.id, w, i.id FROM mj, i WHERE mj.id < 10 ORDER BY mj.id FOR UPDATE OF mj;
SELECT * FROM mj;
SELECT * FROM mu;
-- refused: 0A000
WITH a AS (UPDATE mj SET w = 'k' WHERE prio = 2) INSERT INTO ml SELECT id + 700, w FROM mj WHERE id < 10 FOR UPDATE;
ROLLBACK;
BEGIN;
-- refused: 0A000
WITH a AS (DELETE FROM mj WHERE prio = 1 RETURNING id) SELECT mj.id FROM mj, a WHERE mj.id = a.id FOR UPDATE OF mj;
ROLLBACK;
-- longer chains
BEGIN;
WITH RECURSIVE a AS (UPDATE mj SET w='n' WHERE id=1 RETURNING id), rr AS (SELECT id FROM a UNION ALL SELECT id+1 FROM rr WHERE id<10), b AS (DELETE FROM mu USING rr WHERE mu.o=rr.id RETURNING mu.*) SELECT * FROM b ORDER BY 1;
WITH a AS (DELETE FROM mu WHERE o<20 RETURNING *) SELECT x.o, y.n FROM a x LEFT JOIN LATERAL (SELECT count(*) n FROM a z WHERE z.o<x.o) y ON true ORDER BY 1;
WITH a AS (UPDATE mu SET v='w' WHERE o<40 RETURNING *), b AS (UPDATE mj SET w=(SELECT string_agg(v, ',' ORDER BY o) FROM a WHERE a.k=mj.id) WHERE id<30 RETURNING *) SELECT * FROM b ORDER BY 1;
WITH a AS (UPDATE mu SET (k,v)=(SELECT max(id), min(w) FROM mj WHERE prio=mu.o%3) WHERE o<60 RETURNING *), b AS (UPDATE mu SET v='other' WHERE o>90 RETURNING *) SELECT * FROM a UNION ALL SELECT * FROM b ORDER BY 1;
WITH a AS (DELETE FROM mu WHERE o%2=0 RETURNING *), b AS (DELETE FROM mu WHERE o%3=0 RETURNING *), c AS (DELETE FROM mu WHERE o%5=0 RETURNING *) SELECT 'a', o FROM a UNION ALL SELECT 'b', o FROM b UNION ALL SELECT 'c', o FROM c ORDER BY 1,2;
WITH a AS (UPDATE mt SET x=x+1 WHERE k<5 RETURNING *), b AS (UPDATE mt SET x=mt.x+100 FROM a WHERE mt.id=a.id+1 RETURNING mt.*), c AS (UPDATE mt SET x=mt.x+1000 FROM b WHERE mt.id=b.id+1 RETURNING mt.*) SELECT count(*), sum(x) FROM c;
WITH a AS (UPDATE mt SET x=0 WHERE k<5 RETURNING *), b AS (INSERT INTO mt SELECT k, id+7000, x, s FROM a RETURNING *) DELETE FROM mt USING b WHERE mt.id+7000=b.id AND mt.x>5;
SELECT * FROM mt;
SELECT * FROM mu;
SELECT * FROM mj;
ROLLBACK;
-- a view that checks new rows
CREATE VIEW mv AS SELECT * FROM mt WHERE x < 6 WITH CHECK OPTION;
WITH a AS (UPDATE mv SET x = 7 WHERE id < 90 RETURNING *), b AS (UPDATE mu SET v = v || a.x FROM a WHERE a.id = mu.o RETURNING mu.*) SELECT * FROM b;
BEGIN;
WITH a AS (UPDATE mv SET x = 5 WHERE id < 90 RETURNING *), b AS (UPDATE mu SET v = v || a.x FROM a WHERE a.id = mu.o RETURNING mu.*) SELECT * FROM b;
SELECT * FROM mt;
ROLLBACK;
DROP VIEW mv;
-- errors leave everything as it was
WITH a AS (UPDATE mt SET x = x + 1 RETURNING *), b AS (UPDATE mu SET v = 'x' FROM a WHERE mu.k = a.k / (a.id - 5) RETURNING *) SELECT count(*) FROM b;
WITH a AS (DELETE FROM mt WHERE x = 1 RETURNING *) UPDATE mu SET o = 1 FROM a WHERE mu.k = a.k;
WITH a AS (UPDATE mt SET id = 1 FROM mu WHERE mt.k = mu.k RETURNING *), b AS (DELETE FROM mu) SELECT count(*) FROM a;
SELECT * FROM mt;
SELECT * FROM mu;
PREPARE mp(int) AS WITH a AS (UPDATE mt SET x = x + 1 WHERE id < $1 RETURNING *), b AS (UPDATE mu SET v = v || a.x FROM a WHERE a.id = mu.o RETURNING mu.o) SELECT sum(o) FROM b;
EXECUTE mp(10);
EXECUTE mp(20);
EXECUTE mp(30);
EXECUTE mp(10);
EXECUTE mp(10);
EXECUTE mp(11);
EXECUTE mp(12);
DO $$ DECLARE n int; BEGIN WITH a AS (UPDATE mt SET x = x + 1 WHERE id < 50 RETURNING *), b AS (UPDATE mu SET v = v || a.x FROM a WHERE a.id = mu.o RETURNING mu.o) SELECT sum(o) INTO n FROM b; UPDATE ml SET v = n::text WHERE id = 1; END $$;
SELECT * FROM mt;
SELECT * FROM mu;
WITH a AS (UPDATE mt SET x = x + 1 WHERE id < 50 RETURNING *) MERGE INTO mu USING a ON mu.o = a.id WHEN MATCHED AND a.x > 3 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT VALUES (a.id, a.k, 'mm');
SELECT * FROM mu;
WITH a AS (UPDATE mt SET x = x + 1 RETURNING k, id), b AS (INSERT INTO mu SELECT id + 100000, k, 'many' FROM a, generate_series(1, 1) RETURNING o) DELETE FROM mt USING b WHERE mt.id + 100000 = b.o AND mt.k > 20;
SELECT * FROM mt;
SELECT * FROM mu;
SELECT * FROM ml;
DEALLOCATE mp;
DROP TABLE mt, mu, mj, mg, ml;
DROP TABLE mr;
