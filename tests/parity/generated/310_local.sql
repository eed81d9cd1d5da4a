-- A local table changed by what distributed tables say.
BEGIN;
UPDATE loc SET d = loc.d + 1 FROM a WHERE loc.id = a.id AND a.n = 3;
UPDATE loc SET d = s.d FROM (SELECT t, min(d) AS d FROM a GROUP BY t) s WHERE loc.t = s.t RETURNING loc.*;
UPDATE loc SET n = 7 WHERE t IN (SELECT t FROM a WHERE n >= 3) RETURNING *;
UPDATE loc SET n = 8 WHERE t NOT IN (SELECT t FROM a WHERE t IS NOT NULL) RETURNING *;
UPDATE loc SET n = (SELECT max(n) FROM a WHERE a.id = loc.id), t = (SELECT min(code) FROM c WHERE c.id = loc.id);
UPDATE loc SET n = 5 FROM a LEFT JOIN b ON a.id = b.id WHERE a.id = loc.id AND a.id = 3;
UPDATE loc SET n = 4 FROM pairs WHERE pairs.id = loc.id;
SELECT * FROM loc;
DELETE FROM loc WHERE EXISTS (SELECT FROM a WHERE a.n = loc.n) RETURNING id;
DELETE FROM loc USING a, ref WHERE a.id = loc.id AND ref.id = a.n RETURNING loc.id;
WITH x AS (SELECT id FROM b WHERE k = 3) DELETE FROM loc USING x WHERE x.id = loc.id;
WITH x AS (SELECT id FROM a WHERE id = 4) DELETE FROM loc USING x WHERE x.id = loc.id;
SELECT * FROM loc;
ROLLBACK;
SELECT * FROM loc WHERE t IN (SELECT t FROM a WHERE n >= 3) FOR UPDATE;
SELECT loc.* FROM loc JOIN a USING (id) WHERE a.n > 2 FOR UPDATE OF loc;
SELECT loc.id, (a).t FROM loc JOIN a USING (id) WHERE a.n > 2 FOR SHARE OF loc;
BEGIN;
MERGE INTO loc USING (SELECT DISTINCT id FROM a WHERE id IS NOT NULL) s ON loc.id = s.id
    WHEN MATCHED THEN UPDATE SET n = 99 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new', 0, NULL);
MERGE INTO loc USING u ON loc.id = u.k WHEN MATCHED THEN DELETE;
SELECT * FROM loc;
ROLLBACK;
