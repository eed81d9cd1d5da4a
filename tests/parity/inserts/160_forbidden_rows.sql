-- Rows that views with CHECK OPTION and constraints forbid: what errors say of them.
-- details
INSERT INTO guarded_small VALUES (100, 60, 'abc', ROW('a', 1)::place);
INSERT INTO guarded_small VALUES (100, 60, repeat('abc', 50));
INSERT INTO guarded_small VALUES (100, 10, 'a'), (101, 60, 'b, ")');
INSERT INTO guarded_small VALUES (100, NULL, 'a'), (101, 60, 'b');
INSERT INTO guarded_small (k, v) VALUES (101, 60);
INSERT INTO guarded_small (k, v) VALUES (101, 160);
INSERT INTO guarded_small SELECT id + 200, v FROM more;
INSERT INTO guarded_small SELECT k + 200, v + 40 FROM guarded WHERE k IN (2, 10);
UPDATE guarded_small SET v = 60 WHERE k = 3;
UPDATE guarded_small SET v = v + 45 WHERE k = 9 RETURNING *;
UPDATE guarded_small SET v = v + 45 WHERE v = 9;
UPDATE guarded_small g SET v = m.v FROM more m WHERE k = id;
UPDATE guarded_small SET v = 70 + (random() * 0)::int WHERE k = 4;
UPDATE guarded_small SET v = 170 + (random() * 0)::int WHERE k = 4;
UPDATE guarded_small SET k = 500, v = 77 WHERE k = 4;
WITH changed AS (UPDATE guarded_small SET v = 77 WHERE k = 4 RETURNING *) SELECT * FROM changed;
WITH added AS (INSERT INTO guarded_small VALUES (400, 77) RETURNING k) SELECT * FROM added;
-- by columns that are generated, and the whole row
UPDATE guarded_generated SET v = 40 WHERE k = 4;
UPDATE guarded_generated SET v = 40 + (random() * 0)::int WHERE k = 4;
INSERT INTO guarded_generated VALUES (900, 45);
INSERT INTO guarded_generated VALUES (900, 5), (901, 45);
INSERT INTO guarded_generated VALUES (900, 5) RETURNING *;
INSERT INTO guarded_generated VALUES (901, 5), (902, 6) RETURNING *;
INSERT INTO guarded_whole VALUES (903, 5);
INSERT INTO guarded_whole VALUES (904, 45);
INSERT INTO guarded_whole VALUES (904, 6), (905, 45);
UPDATE guarded_whole SET v = 45 WHERE k = 5;
INSERT INTO guarded_by_others VALUES (906, 20);
INSERT INTO guarded_by_others VALUES (907, 55);
UPDATE guarded_by_others SET v = 55 WHERE k = 2;
-- views of views
INSERT INTO guarded_low VALUES (2000, 1);
INSERT INTO guarded_low VALUES (200, 60);
UPDATE guarded_low SET v = 60 WHERE k = 2;
INSERT INTO guarded_cascaded (k, v) VALUES (200, 60);
INSERT INTO guarded_cascaded (k, v) VALUES (2000, 1);
UPDATE guarded_cascaded SET v = 60 WHERE k = 2;
UPDATE guarded_cascaded SET k = 2000 WHERE k = 2;
-- ON CONFLICT, on the shard and here
INSERT INTO guarded_small VALUES (3, 60) ON CONFLICT (k) DO UPDATE SET v = excluded.v;
INSERT INTO guarded_small VALUES (3, 20) ON CONFLICT (k) DO UPDATE SET v = excluded.v + 50;
INSERT INTO guarded_small VALUES (3, 20), (-4, 20) ON CONFLICT (k) DO UPDATE SET v = excluded.v + 50;
INSERT INTO guarded_small VALUES (3, 20) ON CONFLICT (k) DO UPDATE SET v = excluded.v + 50 + (random() * 0)::int;
INSERT INTO guarded_small VALUES (3, 20) ON CONFLICT (k) DO UPDATE SET v = excluded.v + next_step();
INSERT INTO guarded_small VALUES (3, 20) ON CONFLICT (k) DO UPDATE SET v = (SELECT max(v) FROM more);
INSERT INTO guarded_small VALUES (3, 20) ON CONFLICT (k) DO UPDATE SET v = excluded.v RETURNING *;
-- constraints
INSERT INTO guarded (k, v) VALUES (300, 150);
INSERT INTO guarded (k, v) VALUES (300, 99);
INSERT INTO guarded (k, v) VALUES (300, NULL);
INSERT INTO guarded (v) VALUES (30);
INSERT INTO guarded (k, v, d) VALUES (300, 1, 3);
INSERT INTO guarded (k, v, d) VALUES (300, 1, 2), (301, 1, 3);
INSERT INTO guarded (k, v, d) VALUES (300, 1, 2), (301, 150, 2);
INSERT INTO guarded (k, v, g) VALUES (300, 1, 1);
INSERT INTO guarded (k, v, n) VALUES (300, 1, 12345.5);
INSERT INTO guarded SELECT id + 300, NULL FROM more;
INSERT INTO guarded SELECT NULL, v FROM more;
MERGE INTO guarded g USING more m ON g.k = m.id WHEN MATCHED THEN UPDATE SET v = 300;
MERGE INTO guarded g USING more m ON g.k = m.id WHEN MATCHED THEN UPDATE SET v = NULL;
MERGE INTO guarded g USING more m ON g.k = m.id + 700 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (id + 700, 300);
UPDATE guarded SET v = 150 WHERE k = 5;
UPDATE guarded SET v = 150 + (random() * 0)::int WHERE k = 5;
UPDATE guarded g SET v = m.v * 3 FROM more m WHERE k = id;
UPDATE guarded SET d = 1 WHERE k = 5;
UPDATE guarded SET k = NULL WHERE k = 5;
UPDATE guarded SET k = 600, v = 150 WHERE k = 5;
SELECT * FROM guarded;
-- values that the user must not see
SET ROLE parity_writer;
INSERT INTO secrets VALUES (1, 1, NULL, NULL);
INSERT INTO secrets VALUES (6, 5, 'unreadable', 2);
UPDATE secrets SET level = 9 WHERE owner = 2;
RESET ROLE;
