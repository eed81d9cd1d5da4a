-- Statements of one form with other constants: each is planned once for parameters, and must mean what it says every time.
SELECT name, plan FROM tenants WHERE tenant_id = 1;
SELECT name, plan FROM tenants WHERE tenant_id = 2;
SELECT name, plan FROM tenants WHERE tenant_id = 3;
SELECT name, plan FROM tenants WHERE tenant_id = 40;
SELECT name, plan FROM tenants WHERE tenant_id = 41;
SELECT name, plan FROM tenants WHERE tenant_id = -1;
SELECT name, plan FROM tenants WHERE tenant_id = NULL;
SELECT name, plan FROM tenants WHERE tenant_id = 3;
SELECT name, plan FROM tenants WHERE tenant_id = '7';
SELECT name, plan FROM tenants WHERE tenant_id = 2147483647;
SELECT name, plan FROM tenants WHERE tenant_id = 8.0;
SELECT name, plan FROM tenants WHERE tenant_id = 7.5;
SELECT name, plan FROM tenants WHERE tenant_id = 99999999999;

SELECT user_id, age FROM users WHERE tenant_id = 1 AND age > 30 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 2 AND age > 30 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 30 AND age > 30 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 3 AND age > 3 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 4 AND age > 4 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 5 AND age > 60 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = NULL AND age > 5 ORDER BY 1, 2;
SELECT user_id, age FROM users WHERE tenant_id = 5 AND age > NULL ORDER BY 1, 2;

SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 1 AND o.tenant_id = 1;
SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 2 AND o.tenant_id = 2;
SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 2 AND o.tenant_id = 3;
SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 3 AND o.tenant_id = 2;
SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 4 AND o.tenant_id = 4;
SELECT count(*) FROM users u JOIN orders o USING (tenant_id, user_id) WHERE u.tenant_id = 5 AND o.tenant_id = NULL;

SELECT count(*) FROM users WHERE tenant_id = 1 OR tenant_id = 1;
SELECT count(*) FROM users WHERE tenant_id = 1 OR tenant_id = 2;
SELECT count(*) FROM users WHERE tenant_id = 2 OR tenant_id = 2;
SELECT count(*) FROM users WHERE tenant_id = 3 OR tenant_id = 4;

SELECT count(*) FROM orders WHERE tenant_id = 1 AND tenant_id = 1;
SELECT count(*) FROM orders WHERE tenant_id = 1 AND tenant_id = 2;
SELECT count(*) FROM orders WHERE tenant_id = 2 AND tenant_id = 2;
SELECT count(*) FROM orders WHERE tenant_id = 3 AND tenant_id = 4;

SELECT order_id, note FROM orders WHERE tenant_id = 3 AND note LIKE 'note 1%' ORDER BY 1;
SELECT order_id, note FROM orders WHERE tenant_id = 3 AND note LIKE 'note 2%' ORDER BY 1;
SELECT order_id, note FROM orders WHERE tenant_id = 4 AND note LIKE '%9' ORDER BY 1;
SELECT order_id, note FROM orders WHERE tenant_id = 4 AND note LIKE '' ORDER BY 1;
SELECT order_id, note FROM orders WHERE tenant_id = 5 AND note LIKE 'it''s' ORDER BY 1;

SELECT order_id, amount FROM orders WHERE tenant_id = 3 AND status = 'paid' AND created < '2024-06-01' ORDER BY order_id DESC LIMIT 2;
SELECT order_id, amount FROM orders WHERE tenant_id = 7 AND status = 'new' AND created < '2024-07-01' ORDER BY order_id DESC LIMIT 2;
SELECT order_id, amount FROM orders WHERE tenant_id = 7 AND status = 'new' AND created < '2024-07-01' ORDER BY order_id DESC LIMIT 3;
SELECT order_id, amount FROM orders WHERE tenant_id = 9 AND status = 'shipped' AND created < 'infinity' ORDER BY order_id DESC LIMIT 2;
SELECT order_id, amount FROM orders WHERE tenant_id = 9 AND status = 'shipped' AND created < '-infinity' ORDER BY order_id DESC LIMIT 2;

SELECT order_id FROM orders WHERE tenant_id = 3 AND status = 'paid';
SELECT order_id FROM orders WHERE tenant_id = 3 AND status = 'broken';
SELECT order_id FROM orders WHERE tenant_id = 4 AND status = 'new';
SELECT order_id FROM orders WHERE tenant_id = 4 AND status = 'again';

SELECT tenant_id + 1 AS plus, 2 AS shown, count(*) FROM users WHERE tenant_id = 3 GROUP BY 1 ORDER BY 1;
SELECT tenant_id + 1 AS plus, 2 AS shown, count(*) FROM users WHERE tenant_id = 4 GROUP BY 1 ORDER BY 1;
SELECT tenant_id + 2 AS plus, 2 AS shown, count(*) FROM users WHERE tenant_id = 2 GROUP BY 1 ORDER BY 1;
SELECT tenant_id + 4 AS plus, 4 AS shown, count(*) FROM users WHERE tenant_id = 4 GROUP BY 1 ORDER BY 1;

SELECT age / 10 AS decade, count(*) FROM users WHERE tenant_id = 10 GROUP BY age / 10 ORDER BY 1;
SELECT age / 10 AS decade, count(*) FROM users WHERE tenant_id = 3 GROUP BY age / 10 ORDER BY 1;
SELECT age / 5 AS decade, count(*) FROM users WHERE tenant_id = 5 GROUP BY age / 5 ORDER BY 1;
SELECT age / 7 AS decade, count(*) FROM users WHERE tenant_id = 5 GROUP BY age / 7 ORDER BY 1;
SELECT age / 0 AS decade, count(*) FROM users WHERE tenant_id = 3 GROUP BY age / 0 ORDER BY 1;

SELECT CASE WHEN age > 30 THEN 'old' ELSE 'young' END AS kind, count(*) FROM users WHERE tenant_id = 3 GROUP BY 1 ORDER BY 1;
SELECT CASE WHEN age > 40 THEN 'old' ELSE 'young' END AS kind, count(*) FROM users WHERE tenant_id = 3 GROUP BY 1 ORDER BY 1;
SELECT CASE WHEN age > 4 THEN 'old' ELSE 'young' END AS kind, count(*) FROM users WHERE tenant_id = 4 GROUP BY 1 ORDER BY 1;
SELECT CASE WHEN age > 1000 THEN 'old' ELSE 'young' END AS kind, count(*) FROM users WHERE tenant_id = 2 GROUP BY 1 ORDER BY 1;

SELECT extract(year FROM created) AS part FROM orders WHERE tenant_id = 3 ORDER BY 1 LIMIT 3;
SELECT extract(month FROM created) AS part FROM orders WHERE tenant_id = 3 ORDER BY 1 LIMIT 3;
SELECT extract(dow FROM created) AS part FROM orders WHERE tenant_id = 4 ORDER BY 1 LIMIT 3;
SELECT extract(epoch FROM created) AS part FROM orders WHERE tenant_id = 4 ORDER BY 1 LIMIT 3;

SELECT amount::numeric(8,1), '12.345'::numeric(10,1), 'abcdef'::varchar(3) FROM orders WHERE tenant_id = 3 AND order_id = 42;
SELECT amount::numeric(8,1), '12.345'::numeric(10,2), 'abcdef'::varchar(3) FROM orders WHERE tenant_id = 3 AND order_id = 42;
SELECT amount::numeric(9,1), '12.345'::numeric(10,1), 'abcdef'::varchar(2) FROM orders WHERE tenant_id = 4 AND order_id = 43;
SELECT amount::numeric(10,1), '12.345'::numeric(10,1), 'abcdef'::varchar(5) FROM orders WHERE tenant_id = 5 AND order_id = 44;

SELECT email FROM users WHERE tenant_id = 1 AND email = 'user2@t1.example';
SELECT email FROM users WHERE tenant_id = 2 AND email = 'user3@t2.example';
SELECT email FROM users WHERE tenant_id = 2 AND email = 'nothing';
SELECT email FROM users WHERE tenant_id = 3 AND email = 'user4@t3.example';

SELECT label, weight FROM labels WHERE label = 'label 1' ORDER BY weight;
SELECT label, weight FROM labels WHERE label = 'label 2' ORDER BY weight;
SELECT label, weight FROM labels WHERE label = 'label 3' ORDER BY weight;
SELECT label, weight FROM labels WHERE label = '' ORDER BY weight;
SELECT label, weight FROM labels WHERE label = 'o''clock' ORDER BY weight;
SELECT label, weight FROM labels WHERE label = 'ünï' ORDER BY weight;

SELECT sensor FROM readings WHERE day = '2024-01-05' ORDER BY 1 LIMIT 3;
SELECT sensor FROM readings WHERE day = '2024-02-05' ORDER BY 1 LIMIT 3;
SELECT sensor FROM readings WHERE day = '2024-03-05' ORDER BY 1 LIMIT 3;
SELECT sensor FROM readings WHERE day = '2025-01-01' ORDER BY 1 LIMIT 3;

SELECT count(*) FROM sales WHERE region = 'north' AND amount > 10;
SELECT count(*) FROM sales WHERE region = 'south' AND amount > 10;
SELECT count(*) FROM sales WHERE region = 'east' AND amount > 10.5;
SELECT count(*) FROM sales WHERE region = 'nowhere' AND amount > 0;

SELECT payload FROM events WHERE event_id = 1 AND payload->>'level' IS NOT NULL;
SELECT payload FROM events WHERE event_id = 2 AND payload->>'city' IS NOT NULL;
SELECT payload FROM events WHERE event_id = 3 AND payload->>'level' IS NOT NULL;
SELECT payload FROM events WHERE event_id = 3 AND payload->>'none' IS NOT NULL;

SELECT (SELECT max(amount) FROM orders o WHERE o.tenant_id = 3 AND o.user_id = 1) AS most, count(*) FROM users WHERE tenant_id = 3;
SELECT (SELECT max(amount) FROM orders o WHERE o.tenant_id = 3 AND o.user_id = 2) AS most, count(*) FROM users WHERE tenant_id = 3;
SELECT (SELECT max(amount) FROM orders o WHERE o.tenant_id = 4 AND o.user_id = 4) AS most, count(*) FROM users WHERE tenant_id = 4;
SELECT (SELECT max(amount) FROM orders o WHERE o.tenant_id = 4 AND o.user_id = 5) AS most, count(*) FROM users WHERE tenant_id = 6;

SELECT u.name, c.name AS country FROM tenants t JOIN users u USING (tenant_id) LEFT JOIN countries c ON c.code = t.country WHERE t.tenant_id = 1 AND u.user_id = 2 AND c.currency = 'EUR';
SELECT u.name, c.name AS country FROM tenants t JOIN users u USING (tenant_id) LEFT JOIN countries c ON c.code = t.country WHERE t.tenant_id = 2 AND u.user_id = 3 AND c.currency = 'GBP';
SELECT u.name, c.name AS country FROM tenants t JOIN users u USING (tenant_id) LEFT JOIN countries c ON c.code = t.country WHERE t.tenant_id = 3 AND u.user_id = 3 AND c.currency = 'JPY';

SELECT user_id FROM users WHERE tenant_id = 1 AND tags = '{{a,b}}' ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 2 AND tags = '{{a,b}}' ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 3 AND tags = '{{}}' ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 4 AND tags = '{{b,NULL,x3}}' ORDER BY 1;

SELECT user_id FROM users WHERE tenant_id = 1 AND active = true AND score >= 20 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 1 AND active = false AND score >= 20 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 2 AND active = true AND score >= 100.0 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 3 AND active = false AND score >= -1 ORDER BY 1;

SELECT order_id FROM orders WHERE tenant_id = 3 AND created BETWEEN '2024-02-01' AND '2024-03-01' ORDER BY 1;
SELECT order_id FROM orders WHERE tenant_id = 4 AND created BETWEEN '2024-02-01' AND '2024-03-01' ORDER BY 1;
SELECT order_id FROM orders WHERE tenant_id = 5 AND created BETWEEN '2024-03-01' AND '2024-02-01' ORDER BY 1;

SELECT order_id FROM orders WHERE tenant_id = 3 AND order_id IN (2, 42) ORDER BY 1 FOR UPDATE;
SELECT order_id FROM orders WHERE tenant_id = 3 AND order_id IN (2, 82) ORDER BY 1 FOR UPDATE;
SELECT order_id FROM orders WHERE tenant_id = 4 AND order_id IN (3, 3) ORDER BY 1 FOR UPDATE;

INSERT INTO notes (tenant_id, body) VALUES (1, 'one') RETURNING tenant_id, note_id, seq, body;
INSERT INTO notes (tenant_id, body) VALUES (2, 'two') RETURNING tenant_id, note_id, seq, body;
INSERT INTO notes (tenant_id, body) VALUES (3, 'three''s') RETURNING tenant_id, note_id, seq, body;
INSERT INTO notes (tenant_id, body) VALUES (3, '3') RETURNING tenant_id, note_id, seq, body;
INSERT INTO notes (tenant_id, body) VALUES (NULL, 'x') RETURNING tenant_id, note_id, seq, body;
INSERT INTO notes (tenant_id, body) VALUES (4, 'four') RETURNING tenant_id, note_id, seq, body;

INSERT INTO tenants (tenant_id, name, plan, created) VALUES (201, 'a', 'a', '2024-01-01');
INSERT INTO tenants (tenant_id, name, plan, created) VALUES (202, 'a', 'b', '2024-01-01');
INSERT INTO tenants (tenant_id, name, plan, created) VALUES (203, 'c', 'c', '2024-01-02');
INSERT INTO tenants (tenant_id, name, plan, created) VALUES (203, 'again', 'c', '2024-01-02');
INSERT INTO tenants (tenant_id, name, plan, created) VALUES (204, 'd', 'e', 'broken');
INSERT INTO tenants (tenant_id, name, plan, created) VALUES (205, 'f', 'f', '2024-02-30');

INSERT INTO tenants (tenant_id, name, created) VALUES (201, 'x', now()::date - 1) ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name || '!' WHERE tenants.plan <> 'b' RETURNING tenant_id, name;
INSERT INTO tenants (tenant_id, name, created) VALUES (202, 'y', now()::date - 1) ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name || '?' WHERE tenants.plan <> 'b' RETURNING tenant_id, name;
INSERT INTO tenants (tenant_id, name, created) VALUES (203, 'z', now()::date - 2) ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name || 'z' WHERE tenants.plan <> 'free' RETURNING tenant_id, name;
INSERT INTO tenants (tenant_id, name, created) VALUES (206, 'w', now()::date - 2) ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name || 'w' WHERE tenants.plan <> 'free' RETURNING tenant_id, name;

INSERT INTO users (tenant_id, user_id, email, age) VALUES (201, 1, 'a@b', 1);
INSERT INTO users (tenant_id, user_id, email, age) VALUES (202, 2, 'a@b', 2);
INSERT INTO users (tenant_id, user_id, email, age) VALUES (203, 3, 'c@d', 4);
INSERT INTO users (tenant_id, user_id, email, age) VALUES (203, 4, 'no domain', 4);
INSERT INTO users (tenant_id, user_id, email, age) VALUES (203, 5, 'e@f', NULL);
INSERT INTO users (tenant_id, user_id, email, age) VALUES (203, 6, 'g@h', DEFAULT);

UPDATE users SET age = 50, name = 'A' WHERE tenant_id = 201 AND user_id = 1;
UPDATE users SET age = 201, name = 'B' WHERE tenant_id = 201 AND user_id = 1;
UPDATE users SET age = 2, name = 'C' WHERE tenant_id = 202 AND user_id = 2;
UPDATE users SET age = 3, name = '3' WHERE tenant_id = 203 AND user_id = 3;
UPDATE users SET age = NULL, name = 'D' WHERE tenant_id = 203 AND user_id = 3;
UPDATE users SET age = 4, name = 'it''s' WHERE tenant_id = 203 AND user_id = 5;

UPDATE users SET tenant_id = 201, age = age + 1 WHERE tenant_id = 201 AND user_id = 1 RETURNING tenant_id, age, age > 50;
UPDATE users SET tenant_id = 202, age = age + 2 WHERE tenant_id = 202 AND user_id = 2 RETURNING tenant_id, age, age > 2;
UPDATE users SET tenant_id = 203, age = age + 3 WHERE tenant_id = 203 AND user_id = 3 RETURNING tenant_id, age, age > 3;

UPDATE orders SET status = 'paid', amount = amount * 2 WHERE tenant_id = 3 AND order_id = 42 RETURNING order_id, status, amount;
UPDATE orders SET status = 'new', amount = amount * 1.5 WHERE tenant_id = 3 AND order_id = 82 RETURNING order_id, status, amount;
UPDATE orders SET status = 'returned', amount = amount * 3 WHERE tenant_id = 3 AND order_id = 42 RETURNING order_id, status, amount;
UPDATE orders SET status = 'bad', amount = amount * 3 WHERE tenant_id = 3 AND order_id = 42 RETURNING order_id, status, amount;

DELETE FROM notes WHERE tenant_id = 1 AND body = 'one' RETURNING body;
DELETE FROM notes WHERE tenant_id = 2 AND body = 'two' RETURNING body;
DELETE FROM notes WHERE tenant_id = 3 AND body = 'three''s' RETURNING body;
DELETE FROM notes WHERE tenant_id = 3 AND body = 'none' RETURNING body;

DELETE FROM users WHERE tenant_id = 201 AND user_id > 0;
DELETE FROM users WHERE tenant_id = 202 AND user_id > 0;
DELETE FROM users WHERE tenant_id = 203 AND user_id > 0;

-- what changes between them
SET timezone = 'Asia/Tokyo';
SELECT order_id FROM orders WHERE tenant_id = 3 AND created < '2024-01-10 00:00' ORDER BY 1;
SELECT order_id FROM orders WHERE tenant_id = 4 AND created < '2024-01-10 00:00' ORDER BY 1;
SET timezone = 'America/New_York';
SELECT order_id FROM orders WHERE tenant_id = 3 AND created < '2024-01-10 00:00' ORDER BY 1;
SELECT order_id FROM orders WHERE tenant_id = 4 AND created < '2024-01-10 00:00' ORDER BY 1;
RESET timezone;
CREATE FUNCTION judged(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT CASE WHEN $1 > 50 THEN ''old'' ELSE ''young'' END';
SELECT user_id, judged(age) FROM users WHERE tenant_id = 3 AND user_id < 4 ORDER BY 1;
SELECT user_id, judged(age) FROM users WHERE tenant_id = 4 AND user_id < 5 ORDER BY 1;
SELECT user_id, judged(age) FROM users WHERE tenant_id = 5 AND user_id < 5 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 3 AND name < judged(77) AND user_id < 7 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 4 AND name < judged(77) AND user_id < 8 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 5 AND name < judged(77) AND user_id < 8 ORDER BY 1;
CREATE OR REPLACE FUNCTION judged(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ''B''';
SELECT user_id, judged(age) FROM users WHERE tenant_id = 5 AND user_id < 5 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 5 AND name < judged(77) AND user_id < 8 ORDER BY 1;
SELECT user_id FROM users WHERE tenant_id = 6 AND name < judged(77) AND user_id < 8 ORDER BY 1;
DROP FUNCTION judged(int);
GRANT SELECT (tenant_id, name) ON tenants TO pg_monitor;
SELECT name FROM tenants WHERE tenant_id = 11;
SELECT plan FROM tenants WHERE tenant_id = 11;
SELECT name FROM tenants WHERE tenant_id = 12;
SELECT plan FROM tenants WHERE tenant_id = 12;
SELECT name FROM tenants WHERE tenant_id = 13;
SELECT plan FROM tenants WHERE tenant_id = 13;
SET ROLE pg_monitor;
SELECT name FROM tenants WHERE tenant_id = 13;
SELECT plan FROM tenants WHERE tenant_id = 13;
SELECT name FROM tenants WHERE tenant_id = 14;
SELECT plan FROM tenants WHERE tenant_id = 14;
RESET ROLE;
SELECT plan FROM tenants WHERE tenant_id = 14;
REVOKE ALL ON tenants FROM pg_monitor;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT user_id FROM users WHERE tenant_id = 3 AND user_id < 5 ORDER BY 1;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
DECLARE d SCROLL CURSOR FOR SELECT user_id FROM users WHERE tenant_id = 4 AND user_id < 6 ORDER BY 1;
FETCH LAST FROM d;
FETCH ABSOLUTE 1 FROM d;
COMMIT;
