-- rows locked through views and subqueries, whole rows of these, and SQL functions in FROM
SELECT s1.id FROM ref s1, pairs s2 WHERE s1.id = s2.id FOR UPDATE;
SELECT s2 FROM pairs s2 ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT s2, s1.t FROM ref s1, pairs s2 WHERE s1.id = s2.id ORDER BY s2 LIMIT 3 FOR UPDATE OF s1;
SELECT s2, s1.t FROM ref s1, pairs s2 WHERE s1.id = s2.id ORDER BY s2 LIMIT 3 FOR UPDATE OF s2;
SELECT s2, s1.t FROM ref s1, pairs s2 WHERE s1.id = s2.id ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT s2 FROM (SELECT id, t, n FROM a) s2 ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT row_to_json(s2) FROM (SELECT id, t, n FROM a) s2, ref WHERE ref.id = s2.id ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT s2 FROM a s2 ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT s2 FROM a s2, ref s1 WHERE s1.id = s2.id ORDER BY s2 LIMIT 3 FOR UPDATE;
SELECT loc.id, pairs FROM loc, pairs WHERE loc.id = pairs.id ORDER BY 1, 2 LIMIT 2 FOR UPDATE;
SELECT s1.x1, greatest((SELECT max(s4.id) FROM a s4), s1.x1) FROM (SELECT s2.id AS x1 FROM pairs s2 JOIN loc s3 USING (id) WHERE s2.id < 5) s1 FOR UPDATE;
WITH q1 AS (SELECT s3.id AS x1 FROM a s3 JOIN c s6 ON s3.id = s6.id) SELECT s9.id AS c1, s10.id AS c2 FROM loc s9, rows_of(s9.id) s10 WHERE s9.id = 1 AND s9.id = s10.id ORDER BY 1, 2 LIMIT 1 FOR UPDATE;
SELECT s9.id AS c1, s10.id AS c2 FROM loc s9, LATERAL (SELECT * FROM b WHERE b.id = s9.id) s10 ORDER BY 1, 2 LIMIT 1 FOR UPDATE OF s9;
SELECT s9.id AS c1, (SELECT count(*) FROM a) FROM loc s9, rows_of(s9.id) s10 ORDER BY 1, 2 LIMIT 1 FOR UPDATE OF s9;
SELECT s9.id AS c1, s10 FROM loc s9, rows_of(s9.id) s10 ORDER BY 1, 2 LIMIT 1 FOR UPDATE OF s9;
SELECT s9.id AS c1, s10 FROM a s9, rows_of(s9.n) s10 ORDER BY 1, 2 LIMIT 1 FOR UPDATE;
SELECT * FROM rows_of(3);
SELECT count(*), max(s.v) FROM rows_of(3) s JOIN a USING (id);
SELECT s10 FROM a s9 LEFT JOIN rows_of(s9.n) s10 ON s10.v > 1 ORDER BY 1 LIMIT 4;
-- a function that is replaced by its body, and then another one
PREPARE found AS SELECT count(*), sum(v) FROM rows_of(3);
EXECUTE found;
BEGIN;
CREATE OR REPLACE FUNCTION rows_of(int) RETURNS SETOF b LANGUAGE sql STABLE AS 'SELECT * FROM b WHERE id > $1';
EXECUTE found;
ROLLBACK;
EXECUTE found;
DEALLOCATE found;
-- outer joins of subqueries that are inner ones by what the statement around them says
SELECT s1.id, s2.x1 FROM a s1 JOIN (SELECT s4.id AS x1 FROM r s3 FULL JOIN loc s4 USING (id) WHERE s3.t = s3.t) s2 ON s1.id = s2.x1 ORDER BY 1, 2 FOR SHARE;
SELECT s2.x1, s2.x2 FROM (SELECT s3.id AS x1, s4.n + 1 AS x2 FROM a s3 LEFT JOIN loc s4 USING (id)) s2 WHERE s2.x2 > 0 ORDER BY 1, 2 FOR UPDATE;
SELECT s2.x1 FROM loc s1 RIGHT JOIN (SELECT s3.id AS x1, s4.v FROM (SELECT id, t FROM a) s3 LEFT JOIN (SELECT b.id, u.v FROM b LEFT JOIN u USING (id)) s4 ON s3.id = s4.id) s2 ON s1.id = s2.x1 WHERE s1.n = s2.v ORDER BY 1 LIMIT 3 FOR UPDATE;
SELECT s2.x1 FROM (SELECT s3.id AS x1, s4.n AS x2 FROM a s3 LEFT JOIN loc s4 USING (id)) s2 WHERE s2.x2 IS NULL ORDER BY 1 FOR UPDATE;
SELECT q.x FROM (SELECT s2.x1 AS x FROM (SELECT s4.id AS x1 FROM c s3 FULL JOIN loc s4 USING (id) WHERE s3.n > 0) s2 WHERE s2.x1 < 5 FOR UPDATE) q ORDER BY 1;
SELECT s2.x1, s2.x2 FROM (SELECT s3.id AS x1, s4.n AS x2 FROM a s3 LEFT JOIN loc s4 USING (id)) s2 WHERE s2.x2 IN (SELECT k FROM u) ORDER BY 1, 2 FOR UPDATE;
SELECT a.id, c.n FROM a LEFT JOIN c ON a.n = c.id WHERE c.n IN (SELECT k FROM u) ORDER BY 1, 2 FOR UPDATE;
SELECT a.id, c.n FROM a LEFT JOIN c ON a.n = c.id WHERE (c.n, a.id) IN (SELECT k, v FROM u) ORDER BY 1, 2;
SELECT a.id, c.n FROM a LEFT JOIN c ON a.n = c.id WHERE c.n NOT IN (SELECT k FROM u) ORDER BY 1, 2;
