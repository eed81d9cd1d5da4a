-- Tables that statements of the session still read, or change, are in use.
CREATE TABLE used (k int, v int);
CREATE TABLE used_too (k int, v int);
CREATE TABLE used_everywhere (k int);
-- only: distributed
SELECT create_distributed_table('used', 'k', shard_count => 3);
-- only: distributed
SELECT create_distributed_table('used_too', 'v', shard_count => 2);
-- only: distributed
SELECT create_reference_table('used_everywhere');
INSERT INTO used SELECT i, i % 7 FROM generate_series(1, 200) i;
INSERT INTO used_too SELECT i, i % 9 FROM generate_series(1, 100) i;
INSERT INTO used_everywhere SELECT i FROM generate_series(1, 9) i;
-- block
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM used WHERE k > 0;
TRUNCATE used_too;
FETCH 0 FROM c;
SAVEPOINT s;
TRUNCATE used;
ROLLBACK TO s;
DROP TABLE used;
ROLLBACK TO s;
CLOSE c;
TRUNCATE used;
SELECT count(*) FROM used;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT a.k, b.v FROM used a JOIN used_too b ON a.v = b.k ORDER BY 1, 2;
FETCH 2 FROM c;
SAVEPOINT s;
TRUNCATE used_too;
ROLLBACK TO s;
TRUNCATE used;
ROLLBACK TO s;
TRUNCATE used_everywhere;
FETCH 2 FROM c;
COMMIT;
BEGIN;
DECLARE c CURSOR FOR SELECT (SELECT count(*) FROM used_too b WHERE b.k = a.k), a.k IN (SELECT k FROM used_everywhere) FROM used a WHERE a.k = 4;
FETCH 1 FROM c;
SAVEPOINT s;
TRUNCATE used_too;
ROLLBACK TO s;
TRUNCATE used_everywhere;
ROLLBACK;
-- again: SET shard_ext.join_strategy = repartition
-- again: SET shard_ext.join_strategy = pull
RESET shard_ext.join_strategy;
DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM used LOOP TRUNCATE used; END LOOP; END $$;
DO $$ DECLARE r record; BEGIN FOR r IN UPDATE used SET v = v + 1 WHERE k < 20 RETURNING * LOOP DROP TABLE used; END LOOP; END $$;
DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM used_too LOOP TRUNCATE used; END LOOP; END $$;
SELECT count(*) FROM used;
PREPARE p AS SELECT count(*) FROM used_too WHERE v > $1;
EXECUTE p (1);
TRUNCATE used_too;
EXECUTE p (1);
DROP TABLE used, used_too, used_everywhere;
