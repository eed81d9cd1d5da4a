-- tableoid is the table's, whichever shard a row is on; the other system columns mean a row of one shard.
SELECT tableoid::regclass, count(*) FROM users GROUP BY 1;
SELECT tableoid::regclass, tenant_id FROM tenants WHERE tenant_id = 3;
SELECT tableoid = 'users'::regclass FROM users WHERE tenant_id = 3 AND user_id = 1;
SELECT user_id FROM users WHERE tableoid = 'users'::regclass AND tenant_id = 3 ORDER BY 1;
SELECT user_id FROM users WHERE tableoid = 'orders'::regclass AND tenant_id < 3 ORDER BY 1;
SELECT user_id FROM users WHERE tableoid IN ('orders'::regclass, 'users'::regclass) AND tenant_id < 3 ORDER BY 1;
SELECT u.tableoid::regclass, o.tableoid::regclass, count(*) FROM users u LEFT JOIN orders o USING (tenant_id, user_id) GROUP BY 1, 2 ORDER BY 1, 2;
SELECT e.tableoid::regclass, u.tableoid::regclass, count(*) FROM events e FULL JOIN users u ON u.tenant_id = e.tenant_id AND u.user_id = e.user_id AND u.age > 70 GROUP BY 1, 2 ORDER BY 1, 2;
SELECT c.tableoid::regclass, t.tableoid::regclass, count(*) FROM tenants t LEFT JOIN countries c ON c.code = t.country GROUP BY 1, 2 ORDER BY 1, 2;
SELECT r.tableoid::regclass, t.tableoid::regclass FROM rates r JOIN countries c USING (currency) JOIN tenants t ON t.country = c.code WHERE t.tenant_id < 4 ORDER BY t.tenant_id;
SELECT tableoid::regclass::text || ' ' || tenant_id FROM tenants WHERE tenant_id < 3 ORDER BY 1;
SELECT DISTINCT tableoid::regclass FROM (SELECT tableoid FROM users UNION ALL SELECT tableoid FROM orders) x ORDER BY 1;
SELECT t.tenant_id FROM tenants t WHERE t.tenant_id < 4 AND EXISTS (SELECT FROM tenants b WHERE b.tableoid = t.tableoid AND b.tenant_id = t.tenant_id) ORDER BY 1;
SELECT max(tenant_id) OVER (PARTITION BY tableoid) FROM tenants ORDER BY 1 LIMIT 1;
SELECT tenant_id FROM tenants ORDER BY tableoid, tenant_id LIMIT 2;
SELECT (SELECT tableoid FROM tenants WHERE tenant_id = 1)::regclass;
UPDATE users SET age = 50 WHERE tenant_id = 1 AND user_id = 1 RETURNING tableoid::regclass, user_id;
UPDATE users SET age = 51 WHERE tenant_id < 3 AND user_id = 1 RETURNING tableoid::regclass, tenant_id;
INSERT INTO labels VALUES ('tableoid', 1, 2) RETURNING tableoid::regclass, label;
INSERT INTO labels VALUES ('tableoid', 1, 2), ('tableoid 2', 1, 2) RETURNING tableoid::regclass, label;
DELETE FROM labels WHERE label LIKE 'tableoid%' AND tableoid = 'labels'::regclass RETURNING tableoid::regclass, label;
SELECT count(ctid), count(xmin), count(xmax), count(cmin), count(cmax) FROM users WHERE tenant_id = 3;
SELECT user_id FROM users WHERE tenant_id = 3 AND ctid = (SELECT ctid FROM users WHERE tenant_id = 3 AND user_id = 2);
-- refused: 0A000
SELECT ctid FROM users;
-- refused: 0A000
SELECT count(*) FROM users WHERE ctid = '(0,1)';
-- refused: 0A000
SELECT u.xmin, u.name FROM users u JOIN events e USING (tenant_id, user_id);
-- refused: 0A000
SELECT ctid FROM users ORDER BY 1 LIMIT 1 FOR UPDATE;
