-- columns that are equal because both are equal to some of another table: pieces that this makes, and others that stay apart
ANALYZE;
-- block
SELECT a.id, u.k, c.code FROM a, u, c WHERE a.id = c.id AND u.id = c.id AND u.k = c.n ORDER BY 1, 2, 3;
SELECT count(*), sum(u.k) FROM a, u, c WHERE a.id = c.id AND u.id = c.id AND u.k = c.n AND a.t = 'b';
SELECT count(*) FROM a JOIN c ON a.id = c.id JOIN b ON b.id = c.id AND b.t = c.code;
SELECT count(*), sum(c.v) FROM a, b, u, c WHERE a.id = c.id AND c.id = b.id AND u.id = c.id AND c.n > 1;
SELECT count(*), max(r.num) FROM a, u, c, r WHERE a.id = c.id AND c.n = r.id AND u.id = r.id;
SELECT count(*), max(r.num) FROM a, u, c, r WHERE a.id = c.id AND c.id = r.id AND u.id = r.id;
SELECT count(*) FROM a LEFT JOIN c ON a.id = c.id JOIN u ON u.id = c.id AND u.v > 1;
SELECT count(*), count(u.v) FROM a JOIN c ON a.id = c.id LEFT JOIN u ON u.id = c.id AND u.k = c.n;
SELECT count(*) FROM a, u, loc WHERE a.id = loc.id AND u.id = loc.id AND u.k > loc.n;
SELECT count(*) FROM a, u, ref, c WHERE a.id = ref.id AND u.id = ref.id AND c.n = ref.n;
SELECT count(*), sum(u.v) FROM a, u, c WHERE a.id = c.id AND u.id = c.id AND EXISTS (SELECT FROM r WHERE r.id = u.k AND r.id = a.n);
SELECT x.code, y.t, m.n FROM c x, l y, m WHERE x.code = y.t AND m.id = x.id AND m.n = y.id ORDER BY 1, 2, 3;
SELECT u.id, count(*) FROM u, u w, c WHERE u.id = c.id AND w.id = c.id AND w.k = c.n GROUP BY 1 HAVING count(*) > 1 ORDER BY 1;
BEGIN;
UPDATE c SET n = 9 FROM a, u WHERE a.id = c.id AND u.id = c.id AND u.k = c.n;
SELECT code, id, n FROM c ORDER BY 1, 2, 3;
ROLLBACK;
-- again: SET shard_ext.join_strategy = broadcast
-- again: SET shard_ext.join_strategy = repartition
-- again: SET shard_ext.join_strategy = pull
RESET shard_ext.join_strategy;
