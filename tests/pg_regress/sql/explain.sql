-- What EXPLAIN says of each kind of plan: which shard groups out of how many, which nodes, what is sent.
CREATE SCHEMA explained;
SET search_path = explained;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 5000000;
CREATE TABLE users (tenant_id int, user_id int, name text, PRIMARY KEY (tenant_id, user_id));
CREATE TABLE orders (tenant_id int, order_id int, status text, amount numeric, PRIMARY KEY (tenant_id, order_id));
CREATE TABLE events (event_id bigint PRIMARY KEY, tenant_id int, kind text);
CREATE TABLE plans (plan text PRIMARY KEY, price int);
CREATE TABLE readings (day date, value int);
CREATE TABLE sales (region text, amount int);
SELECT create_distributed_table('users', 'tenant_id', shard_count => 4);
SELECT create_distributed_table('orders', 'tenant_id', colocate_with => 'users');
SELECT create_distributed_table('events', 'event_id', shard_count => 2);
SELECT create_reference_table('plans');
SELECT create_distributed_table('readings', 'day', 'range');
SELECT shard_ext.add_range_shard('readings', '2024-01-01', '2024-02-01', 'worker_1');
SELECT shard_ext.add_range_shard('readings', '2024-02-01', '2024-03-01', 'worker_2');
SELECT create_distributed_table('sales', 'region', 'list');
SELECT shard_ext.add_list_shard('sales', ARRAY['north', 'south'], 'worker_1');
SELECT shard_ext.add_default_shard('sales', 'worker_2');

-- routed
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE tenant_id = 7;
EXPLAIN (COSTS OFF) SELECT u.name, sum(o.amount) FROM users u JOIN orders o USING (tenant_id) WHERE tenant_id = 7 GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE tenant_id IS NULL;
EXPLAIN (COSTS OFF) SELECT * FROM readings WHERE day = '2024-02-11';
EXPLAIN (COSTS OFF) SELECT * FROM sales WHERE region = 'north';

-- pruned
EXPLAIN (COSTS OFF) SELECT count(*) FROM users WHERE tenant_id IN (1, 7);
EXPLAIN (COSTS OFF) SELECT count(*) FROM readings WHERE day >= '2024-02-01';
EXPLAIN (COSTS OFF) SELECT count(*) FROM readings WHERE day < '2020-01-01';
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales WHERE region = 'west' OR region = 'east';
EXPLAIN (COSTS OFF) SELECT count(*) FROM users WHERE tenant_id = 1 AND tenant_id = 7;

-- scattered
EXPLAIN (COSTS OFF) SELECT status, avg(amount) FROM orders GROUP BY status ORDER BY 2 DESC LIMIT 3;
EXPLAIN (COSTS OFF) SELECT * FROM orders ORDER BY amount DESC LIMIT 3 OFFSET 2;
EXPLAIN (COSTS OFF) SELECT tenant_id, count(*) FROM users GROUP BY tenant_id;
EXPLAIN (COSTS OFF) SELECT u.name FROM users u LEFT JOIN orders o USING (tenant_id) WHERE o.order_id IS NULL;

-- aggregates: in part on the nodes, the values of DISTINCT once, the finest of grouping sets
EXPLAIN (COSTS OFF) SELECT stddev(amount), avg(amount), string_agg(status, ',') FROM orders;
EXPLAIN (COSTS OFF) SELECT count(DISTINCT status), count(*) FROM orders;
EXPLAIN (COSTS OFF) SELECT status, count(DISTINCT order_id), count(DISTINCT amount) FILTER (WHERE order_id > 5), sum(amount) FROM orders GROUP BY status;
EXPLAIN (COSTS OFF) SELECT count(DISTINCT tenant_id) FROM orders;
EXPLAIN (COSTS OFF) SELECT status, order_id, sum(amount), grouping(status) FROM orders GROUP BY CUBE (status, order_id);
EXPLAIN (COSTS OFF) SELECT tenant_id, mode() WITHIN GROUP (ORDER BY status), rank() OVER (ORDER BY sum(amount)) FROM orders GROUP BY tenant_id HAVING count(*) > 1;
EXPLAIN (COSTS OFF) SELECT array_agg(order_id) FROM (SELECT order_id FROM orders ORDER BY order_id) o;

-- leaves under PostgreSQL's own plan
SET shard_ext.join_strategy = pull;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT e.kind, u.name FROM events e JOIN users u USING (tenant_id) WHERE e.kind = 'x';
EXPLAIN (COSTS OFF) SELECT e.kind, count(*) FROM events e, users u JOIN orders o USING (tenant_id) WHERE e.tenant_id = o.order_id GROUP BY e.kind;
RESET enable_mergejoin;
-- what is small goes to the shards
SET shard_ext.join_strategy = broadcast;
EXPLAIN (COSTS OFF) SELECT e.kind, u.name FROM events e JOIN users u USING (tenant_id) WHERE e.kind = 'x';
EXPLAIN (COSTS OFF) SELECT count(*) FROM users WHERE tenant_id IN (SELECT tenant_id FROM events WHERE kind = 'x' LIMIT 10);
EXPLAIN (COSTS OFF) SELECT count(*) FROM users WHERE tenant_id > (SELECT avg(tenant_id) FROM events);
-- the nullable side of an outer join as well, the other not
EXPLAIN (COSTS OFF) SELECT e.kind, count(u.name) FROM users u LEFT JOIN events e ON e.event_id = u.user_id GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT v.n, u.name FROM (VALUES (1), (2)) v (n) LEFT JOIN users u ON u.tenant_id = v.n;
EXPLAIN (COSTS OFF) SELECT e.kind, count(u.name) FROM events e FULL JOIN (users u JOIN orders o USING (tenant_id)) ON e.event_id = u.user_id GROUP BY 1;
RESET shard_ext.join_strategy;
-- pieces of outer joins: whatever order they are written in, and inside of what is joined
SET shard_ext.join_strategy = pull;
EXPLAIN (COSTS OFF) SELECT e.kind, count(o.amount) FROM users u LEFT JOIN events e ON e.event_id = u.user_id LEFT JOIN orders o ON o.tenant_id = u.tenant_id GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT e.kind, count(o.amount) FROM events e LEFT JOIN (users u JOIN orders o USING (tenant_id) JOIN plans p ON p.plan = o.status) ON u.user_id = e.event_id GROUP BY 1;
-- tables whose columns are equal to the same column are a piece, unless that has more rows than they have
EXPLAIN (COSTS OFF) SELECT count(*) FROM users u, orders o, events e WHERE u.tenant_id = e.tenant_id AND o.tenant_id = e.tenant_id AND u.user_id = 7 AND o.order_id = e.event_id;
EXPLAIN (COSTS OFF) SELECT count(*) FROM users u, orders o, events e WHERE u.tenant_id = e.tenant_id AND o.tenant_id = e.tenant_id AND o.order_id = e.event_id;
RESET shard_ext.join_strategy;
-- an outer join that is an inner one, a WITH query that is read once
EXPLAIN (COSTS OFF) SELECT p.price, u.name FROM plans p LEFT JOIN users u ON u.name = p.plan WHERE u.user_id > 7;
EXPLAIN (COSTS OFF) WITH o AS (SELECT tenant_id, sum(amount) AS amount FROM orders GROUP BY tenant_id) SELECT u.name, o.amount FROM users u JOIN o USING (tenant_id);
EXPLAIN (COSTS OFF) SELECT random() > 2, name FROM users WHERE name LIKE 'a%';

-- changes
EXPLAIN (COSTS OFF) INSERT INTO users VALUES (7, 1, 'a');
EXPLAIN (COSTS OFF) INSERT INTO users VALUES (7, 1, 'a'), (8, 1, 'b');
EXPLAIN (COSTS OFF) UPDATE users SET name = 'b' WHERE tenant_id = 7;
EXPLAIN (COSTS OFF) DELETE FROM users WHERE user_id = 3;
EXPLAIN (COSTS OFF) UPDATE plans SET price = 1 WHERE plan = 'x';
EXPLAIN (COSTS OFF) DELETE FROM users WHERE ctid IN (SELECT ctid FROM users WHERE name = 'a' LIMIT 10);
EXPLAIN (COSTS OFF) UPDATE users SET name = 'b' WHERE ctid IN (SELECT ctid FROM users WHERE name = 'a' LIMIT 10 FOR UPDATE SKIP LOCKED);

-- a generic plan chooses when it runs
PREPARE q (int) AS SELECT name FROM users WHERE tenant_id = $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE q (7);
EXPLAIN (COSTS OFF) EXECUTE q (1);
RESET plan_cache_mode;

-- all tasks, other formats, what really came
SET shard_ext.explain_all_tasks = on;
EXPLAIN (COSTS OFF) SELECT count(*) FROM users;
RESET shard_ext.explain_all_tasks;
EXPLAIN (COSTS OFF, FORMAT json) SELECT name FROM users WHERE tenant_id = 7;
INSERT INTO users SELECT 1 + g % 5, g, 'user ' || g FROM generate_series(1, 50) g;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT name FROM users WHERE tenant_id = 2;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM users;
-- by estimates; a subquery that looks at few rows
INSERT INTO events SELECT g, 1 + g % 5, 'x' FROM generate_series(1, 8) g;
ANALYZE users, events;
EXPLAIN (COSTS OFF) SELECT e.kind, count(u.name) FROM users u LEFT JOIN events e ON e.event_id = u.user_id GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM events e WHERE e.tenant_id = u.user_id);
-- the answer for a value that comes again is known
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT event_id, ARRAY(SELECT name FROM users u WHERE u.tenant_id = e.tenant_id) FROM (SELECT * FROM events ORDER BY event_id OFFSET 0) e;

-- WITH clauses that write: by the shards, and after their rows were read
EXPLAIN (COSTS OFF) WITH gone AS (DELETE FROM events WHERE kind = 'x' RETURNING tenant_id) SELECT count(*) FROM gone;
EXPLAIN (COSTS OFF) WITH gone AS (DELETE FROM events WHERE kind = 'x' RETURNING tenant_id), told AS (UPDATE users u SET name = 'gone' FROM gone WHERE u.tenant_id = gone.tenant_id RETURNING u.*) SELECT count(*) FROM told;

-- MERGE runs on the shards where rows stay in their shard groups
CREATE TABLE stock (id int PRIMARY KEY, amount int);
CREATE TABLE deliveries (id int, number int, amount int);
SELECT create_distributed_table('stock', 'id', shard_count => 2), create_distributed_table('deliveries', 'id', colocate_with => 'stock');
EXPLAIN (COSTS OFF) MERGE INTO stock s USING deliveries d ON d.id = s.id WHEN MATCHED THEN UPDATE SET amount = s.amount + d.amount WHEN NOT MATCHED THEN INSERT VALUES (d.id, d.amount);
EXPLAIN (COSTS OFF) MERGE INTO stock s USING deliveries d ON d.id = s.id WHEN MATCHED THEN UPDATE SET amount = s.amount + d.amount WHEN NOT MATCHED THEN INSERT VALUES (d.number, d.amount);
EXPLAIN (COSTS OFF) MERGE INTO stock s USING (VALUES (7, 10)) d (id, amount) ON d.id = s.id WHEN MATCHED THEN UPDATE SET amount = s.amount + d.amount WHEN NOT MATCHED THEN INSERT VALUES (d.id, d.amount);
EXPLAIN (COSTS OFF) MERGE INTO stock s USING (VALUES (1, 10), (1, 11)) d (id, amount) ON d.id = s.id WHEN MATCHED THEN UPDATE SET amount = s.amount + d.amount WHEN NOT MATCHED THEN INSERT VALUES (d.id, d.amount);

SET client_min_messages = warning;
DROP SCHEMA explained CASCADE;
