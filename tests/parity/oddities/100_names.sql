-- Names that need quotes.
SELECT count(*) FROM "My Schema"."Order";
SELECT * FROM "My Schema"."Order" WHERE "Order Id" = 7;
SELECT "select", "Üñí", "a""b", "WHERE" FROM "My Schema"."Order" WHERE "Order Id" IN (1, 2) ORDER BY "Order Id";
SELECT "WHERE", sum("a""b"), max(twice) FROM "My Schema"."Order" GROUP BY "WHERE" ORDER BY 1;
SELECT o."Order Id" AS "My ""Id""", u."Name" FROM "My Schema"."Order" o JOIN "UPPER" u ON u.id = o."Order Id" ORDER BY 1;
SELECT "Order"."select" FROM "My Schema"."Order" WHERE "My Schema"."Order"."Order Id" = 3;
SELECT "Order".* FROM "My Schema"."Order" WHERE "a""b" = 4 ORDER BY "Order Id" LIMIT 2;
SELECT "Order" FROM "My Schema"."Order" WHERE "Order Id" = 5;
SELECT x."Order Id" FROM "My Schema"."Order" AS x JOIN "My Schema"."Order" AS "Y y" USING ("Order Id") WHERE "Y y"."a""b" = 1 ORDER BY 1;
INSERT INTO "My Schema"."Order" ("Order Id", "select", "a""b") VALUES (200, 'new', 9) RETURNING *;
INSERT INTO "My Schema"."Order" ("Order Id", kept) VALUES (201, 0);
UPDATE "My Schema"."Order" SET "select" = '"My Schema"."Order"', "Üñí" = DEFAULT WHERE "Order Id" = 200 RETURNING "select", "Üñí", twice;
UPDATE "My Schema"."Order" AS "o o" SET "a""b" = "o o"."a""b" + 1 WHERE "WHERE" = 'happy' RETURNING "Order Id", "a""b", twice;
INSERT INTO "My Schema"."Order" AS "t t" ("Order Id", "select") VALUES (200, 'again') ON CONFLICT ("Order Id") DO UPDATE SET "select" = "t t"."select" || excluded."select" RETURNING "select";
DELETE FROM "My Schema"."Order" WHERE "Order Id" = 200 RETURNING "Order Id";
SET search_path = "My Schema", public;
SELECT count(*) FROM "Order" WHERE kept > 3;
SELECT count(*) FROM "Order" o WHERE o."WHERE" = 'sad'::mood;
RESET search_path;
COPY "My Schema"."Order" ("a""b", "Order Id") FROM STDIN WITH (FORMAT csv);
1,300
,301
\.
COPY "My Schema"."Order" TO STDOUT;
COPY "My Schema"."Order" ("WHERE", "Order Id") TO STDOUT WITH (FORMAT csv, HEADER);
DELETE FROM "My Schema"."Order" WHERE "Order Id" >= 300;
WITH "My Schema" AS (SELECT 1 AS "Order") SELECT "Order" FROM "My Schema";
SELECT 'FROM "My Schema"."Order"' AS trap, "select" FROM "My Schema"."Order" WHERE "select" <> '"My Schema"."Order"' AND "Order Id" = 1;
SELECT "Name" FROM "UPPER" ORDER BY id;
UPDATE "UPPER" SET "Name" = upper("Name") RETURNING *;
SELECT name FROM ci_names WHERE name = 'ADA' ORDER BY id;
SELECT count(*) FROM ci_names GROUP BY name ORDER BY 1;
SELECT count(DISTINCT name) FROM ci_names;
SELECT a.id, b.id FROM ci_names a JOIN ci_names b ON a.name = b.name AND a.id < b.id ORDER BY 1, 2;
SELECT id FROM ci_names ORDER BY name NULLS FIRST, id;
SELECT DISTINCT lower(name COLLATE "C") FROM ci_names ORDER BY 1;
