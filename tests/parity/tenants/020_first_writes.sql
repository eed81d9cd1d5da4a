-- Writes and their errors, seen through the tables afterwards.
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 100, 'new@t3.example', 'New') RETURNING *;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 100, 'other@t3.example');
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 101, 'no address');
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 101, NULL);
INSERT INTO users (tenant_id, user_id, email) VALUES (3000, 1, 'a@b');
INSERT INTO users (tenant_id, user_id, email) VALUES (4, 100, 'x@y'), (5, 100, 'x@y'), (6, 100, 'x@y') RETURNING tenant_id, email;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 100, 'up@t3.example', 'Upserted') ON CONFLICT (tenant_id, user_id) DO UPDATE SET name = excluded.name, email = excluded.email RETURNING name, email;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 100, 'z@z') ON CONFLICT DO NOTHING;
UPDATE users SET age = 40 WHERE tenant_id = 3 AND user_id = 100 RETURNING user_id, age;
UPDATE users SET score = score + 1 WHERE age > 70;
UPDATE orders SET status = 'paid' WHERE tenant_id = 9 AND status = 'new';
DELETE FROM items WHERE tenant_id = 2 AND line = 2;
DELETE FROM events WHERE kind = 'buy' AND user_id IS NULL;
DELETE FROM tenants WHERE tenant_id = 1;
INSERT INTO products VALUES (100, 'product 100', 'new', 1.50);
INSERT INTO products VALUES (101, 'product 100', 'new', 1.50);
UPDATE products SET price = price * 2 WHERE product_id = 100 RETURNING *;
DELETE FROM products WHERE product_id = 1;
INSERT INTO items (tenant_id, order_id, line, product_id) VALUES (2, 1, 3, 12345);
INSERT INTO notes (tenant_id, body) VALUES (1, 'first'), (2, 'second') RETURNING *;
INSERT INTO notes (tenant_id) VALUES (3) RETURNING tenant_id, body, note_id, seq;
BEGIN;
INSERT INTO tenants VALUES (200, 'rolled back', 'free', 'DE', '2024-01-01');
UPDATE users SET name = 'all' WHERE user_id = 1;
SELECT count(*) FROM users WHERE name = 'all';
SAVEPOINT s;
DELETE FROM items;
SELECT count(*) FROM items;
ROLLBACK TO s;
SELECT count(*) FROM items;
ROLLBACK;
SELECT count(*) FROM users WHERE name = 'all';
BEGIN;
UPDATE orders SET amount = amount - 10 WHERE tenant_id = 1 AND order_id = 40;
UPDATE orders SET amount = amount + 10 WHERE tenant_id = 2 AND order_id = 41;
COMMIT;
BEGIN;
INSERT INTO tenants VALUES (201, 'first', 'free', 'DE', '2024-01-01');
INSERT INTO tenants VALUES (201, 'twice', 'free', 'DE', '2024-01-01');
SELECT 1;
COMMIT;
COPY labels (label, tenant_id, weight) FROM STDIN;
copied	1	0.5
\N	2	1.5
other	\N	\N
\.
COPY labels (label, tenant_id, weight) FROM STDIN;
copied	not a number	0.5
\.
COPY (SELECT tenant_id, name FROM tenants ORDER BY 1 LIMIT 3) TO STDOUT WITH (FORMAT csv, HEADER);
COPY labels TO STDOUT;
TRUNCATE labels;
INSERT INTO sales VALUES ('nowhere', 1000, 1), (NULL, 1001, 2) RETURNING *;
INSERT INTO readings VALUES ('2030-01-01', 1, 1.5);
