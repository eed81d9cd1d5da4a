-- SET CONSTRAINTS: what it says holds on the shards as well, and is checked there.
CREATE SCHEMA "late Checks";
CREATE TABLE "late Checks".parents (k int PRIMARY KEY, t text);
CREATE TABLE "late Checks".children (k int, id int, PRIMARY KEY (k, id),
    CONSTRAINT "at ""end" FOREIGN KEY (k) REFERENCES "late Checks".parents DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE "late Checks".others (k int, id int, CONSTRAINT once UNIQUE (k, id) DEFERRABLE,
    CONSTRAINT soon FOREIGN KEY (k) REFERENCES "late Checks".parents DEFERRABLE);
CREATE TABLE "late Checks".copied (id int CONSTRAINT copied_once PRIMARY KEY DEFERRABLE);
-- only: distributed
SELECT create_distributed_table('"late Checks".parents', 'k', shard_count => 4);
-- only: distributed
SELECT create_distributed_table('"late Checks".children', 'k', colocate_with => '"late Checks".parents'), create_distributed_table('"late Checks".others', 'k', colocate_with => '"late Checks".parents');
-- only: distributed
SELECT create_reference_table('"late Checks".copied');
INSERT INTO "late Checks".parents SELECT i, 'p' || i FROM generate_series(1, 10) i;
INSERT INTO "late Checks".others SELECT i, 1 FROM generate_series(1, 10) i;
INSERT INTO "late Checks".copied VALUES (1), (2);
SET CONSTRAINTS ALL IMMEDIATE;
-- at once, though declared for the end
BEGIN;
INSERT INTO "late Checks".children VALUES (100, 1);
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
BEGIN;
SET CONSTRAINTS "late Checks"."at ""end" IMMEDIATE;
INSERT INTO "late Checks".children VALUES (100, 1);
ROLLBACK;
BEGIN;
INSERT INTO "late Checks".children VALUES (100, 1), (3, 1);
INSERT INTO "late Checks".parents VALUES (100, 'in time');
SET CONSTRAINTS ALL IMMEDIATE;
DELETE FROM "late Checks".parents WHERE k = 3;
ROLLBACK;
BEGIN;
INSERT INTO "late Checks".children VALUES (101, 1);
COMMIT;
-- at the end, though declared to be checked at once
BEGIN;
SET CONSTRAINTS "late Checks".soon, "late Checks".once DEFERRED;
INSERT INTO "late Checks".others VALUES (200, 1), (5, 1);
SET CONSTRAINTS "late Checks".soon IMMEDIATE;
ROLLBACK;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO "late Checks".others VALUES (200, 1), (5, 1);
INSERT INTO "late Checks".copied VALUES (1);
INSERT INTO "late Checks".parents VALUES (200, 'late');
DELETE FROM "late Checks".others WHERE k = 5;
INSERT INTO "late Checks".others VALUES (5, 1);
UPDATE "late Checks".copied SET id = id + 5 WHERE id = 2;
SELECT id FROM "late Checks".copied ORDER BY id;
DELETE FROM "late Checks".copied WHERE id = 1;
COMMIT;
SELECT * FROM "late Checks".others ORDER BY k, id;
BEGIN;
INSERT INTO "late Checks".others VALUES (201, 1);
ROLLBACK;
-- of a search path, in a savepoint that is rolled back, in a function
SET search_path = "late Checks", public;
BEGIN;
SAVEPOINT one;
SET CONSTRAINTS soon DEFERRED;
INSERT INTO others VALUES (300, 1);
ROLLBACK TO one;
INSERT INTO others VALUES (301, 1);
ROLLBACK;
BEGIN;
DO $$ BEGIN SET CONSTRAINTS soon DEFERRED; INSERT INTO others VALUES (302, 1); END $$;
SET CONSTRAINTS soon IMMEDIATE;
ROLLBACK;
BEGIN;
SET CONSTRAINTS nothing_of_this_name DEFERRED;
ROLLBACK;
BEGIN;
SET CONSTRAINTS parents_pkey DEFERRED;
ROLLBACK;
RESET search_path;
