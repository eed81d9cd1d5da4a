-- What Django, SQLAlchemy, Rails, Hibernate and Prisma send: quoted names, long aliases, counts around subqueries, eager loading.
-- Django
SELECT "tenants"."tenant_id", "tenants"."name", "tenants"."plan" FROM "tenants" WHERE "tenants"."tenant_id" = 5 LIMIT 21;
SELECT COUNT(*) AS "__count" FROM "orders" WHERE "orders"."status" = 'paid';
SELECT (1) AS "a" FROM "orders" WHERE ("orders"."tenant_id" = 3 AND "orders"."amount" > 100) LIMIT 1;
SELECT "users"."tenant_id", "users"."name", COUNT("orders"."order_id") AS "n" FROM "users" LEFT OUTER JOIN "orders" ON ("users"."tenant_id" = "orders"."tenant_id" AND "users"."user_id" = "orders"."user_id") WHERE "users"."tenant_id" = 4 GROUP BY "users"."tenant_id", "users"."user_id", "users"."name" ORDER BY "n" DESC, "users"."user_id" ASC LIMIT 10;
SELECT "tenants"."plan", COUNT("tenants"."tenant_id") AS "total" FROM "tenants" GROUP BY "tenants"."plan" HAVING COUNT("tenants"."tenant_id") > 10 ORDER BY 1;
SELECT COUNT(*) FROM (SELECT DISTINCT "orders"."user_id" AS "col1" FROM "orders" WHERE "orders"."tenant_id" IN (1, 2, 3)) "subquery";
SELECT COUNT(*) FROM (SELECT "tenants"."tenant_id" AS "col1", COUNT("users"."user_id") AS "n" FROM "tenants" LEFT OUTER JOIN "users" ON ("tenants"."tenant_id" = "users"."tenant_id") GROUP BY "tenants"."tenant_id" HAVING COUNT("users"."user_id") > 5) "subquery";
SELECT "orders"."tenant_id", "orders"."order_id", "users"."name", "tenants"."name" FROM "orders" INNER JOIN "tenants" ON ("orders"."tenant_id" = "tenants"."tenant_id") LEFT OUTER JOIN "users" ON ("orders"."user_id" = "users"."user_id" AND "users"."tenant_id" = ("orders"."tenant_id")) WHERE ("tenants"."country" = 'DE' AND "orders"."amount" >= 900) ORDER BY "orders"."created" DESC, "orders"."order_id" LIMIT 20;
SELECT "tenants"."tenant_id" FROM "tenants" WHERE NOT (EXISTS(SELECT 1 AS "a" FROM "orders" U1 WHERE (U1."status" = 'returned' AND U1."tenant_id" = ("tenants"."tenant_id")) LIMIT 1)) ORDER BY 1;
SELECT "tenants"."tenant_id", EXISTS(SELECT 1 AS "a" FROM "events" U0 WHERE U0."tenant_id" = ("tenants"."tenant_id") LIMIT 1) AS "has_events" FROM "tenants" ORDER BY 1 LIMIT 5;
SELECT "tenants"."tenant_id", (SELECT U0."amount" FROM "orders" U0 WHERE U0."tenant_id" = ("tenants"."tenant_id") ORDER BY U0."created" DESC LIMIT 1) AS "latest" FROM "tenants" ORDER BY "latest" DESC NULLS LAST, "tenants"."tenant_id" LIMIT 5;
SELECT "users"."user_id" FROM "users" WHERE ("users"."tenant_id" = 6 AND UPPER("users"."email"::text) LIKE UPPER('%USER1%')) ORDER BY "users"."user_id";
SELECT AVG("orders"."amount") AS "amount__avg", SUM(CASE WHEN "orders"."status" = 'paid' THEN 1 ELSE 0 END) AS "paid", MAX("orders"."created") AS "m" FROM "orders" WHERE "orders"."created" BETWEEN '2024-02-01 00:00:00+00:00'::timestamptz AND '2024-03-01 00:00:00+00:00'::timestamptz;
SELECT DATE_TRUNC('month', "orders"."created" AT TIME ZONE 'UTC') AS "month", SUM("orders"."amount") AS "s" FROM "orders" GROUP BY 1 ORDER BY 1 ASC;
SELECT EXTRACT(YEAR FROM "tenants"."created") AS "y", COUNT(*) FROM "tenants" GROUP BY EXTRACT(YEAR FROM "tenants"."created") ORDER BY 1;
SELECT "users"."tenant_id", "users"."user_id" FROM "users" WHERE "users"."profile" @> '{"city": "Paris"}'::jsonb AND ("users"."profile" #> '{level}') = '3'::jsonb ORDER BY 1, 2 LIMIT 10;
SELECT DISTINCT "countries"."name" FROM "tenants" INNER JOIN "countries" ON ("tenants"."country" = "countries"."code") WHERE "tenants"."plan" IN ('free', 'team') ORDER BY 1;
SELECT "T"."tenant_id", ROW_NUMBER() OVER (PARTITION BY "T"."plan" ORDER BY "T"."created") AS "rn" FROM "tenants" "T" ORDER BY 1 LIMIT 9;
SELECT * FROM (SELECT "orders"."tenant_id" AS "col1", "orders"."order_id" AS "col2", ROW_NUMBER() OVER (PARTITION BY "orders"."tenant_id" ORDER BY "orders"."amount" DESC NULLS LAST, "orders"."order_id") AS "qual0" FROM "orders") "qualify" WHERE "qual0" <= 2 ORDER BY "col1", "qual0" LIMIT 15;
SELECT "users"."name" FROM "users" WHERE ("users"."tenant_id", "users"."user_id") IN ((1, 2), (1, 3), (7, 4)) ORDER BY "users"."tenant_id", "users"."user_id";
(SELECT "tenants"."name" AS "col1" FROM "tenants" WHERE "tenants"."plan" = 'free') UNION (SELECT "products"."name" AS "col1" FROM "products" WHERE "products"."category" = 'book') ORDER BY (1) ASC LIMIT 10;
SELECT "tenants"."tenant_id" FROM "tenants" WHERE "tenants"."tenant_id" IN (SELECT U0."tenant_id" FROM "events" U0 WHERE U0."kind" = 'buy' AND U0."user_id" IS NULL) ORDER BY "tenants"."tenant_id" ASC LIMIT 12;
SELECT COALESCE(SUM("items"."quantity" * "items"."price"), '0') AS "v" FROM "items" INNER JOIN "products" ON ("items"."product_id" = "products"."product_id") WHERE "products"."category" = 'game';
-- SQLAlchemy
SELECT tenants.tenant_id AS tenants_tenant_id, tenants.name AS tenants_name, users_1.user_id AS users_1_user_id, users_1.name AS users_1_name FROM tenants LEFT OUTER JOIN users AS users_1 ON tenants.tenant_id = users_1.tenant_id AND users_1.age > 70 WHERE tenants.tenant_id IN (1, 2, 3) ORDER BY tenants.tenant_id, users_1.user_id;
SELECT anon_1.tenant_id, anon_1.name, orders_1.order_id FROM (SELECT tenants.tenant_id AS tenant_id, tenants.name AS name FROM tenants ORDER BY tenants.tenant_id LIMIT 3 OFFSET 2) AS anon_1 LEFT OUTER JOIN orders AS orders_1 ON anon_1.tenant_id = orders_1.tenant_id AND orders_1.amount > 950 ORDER BY anon_1.tenant_id, orders_1.order_id;
SELECT orders.tenant_id AS t, orders.order_id AS o FROM orders WHERE (orders.tenant_id, orders.user_id) IN (SELECT users.tenant_id, users.user_id FROM users WHERE users.score > 140.0) ORDER BY orders.tenant_id, orders.order_id LIMIT 10;
SELECT count(*) AS count_1 FROM (SELECT orders.tenant_id AS orders_tenant_id FROM orders WHERE orders.status != 'new') AS anon_1;
SELECT CASE WHEN (users.age IS NULL) THEN 'unknown' WHEN (users.age < 30) THEN 'young' ELSE 'old' END AS class, count(*) AS n, avg(users.score) AS s FROM users GROUP BY CASE WHEN (users.age IS NULL) THEN 'unknown' WHEN (users.age < 30) THEN 'young' ELSE 'old' END ORDER BY 1;
WITH anon_1 AS (SELECT orders.tenant_id AS tenant_id, sum(orders.amount) AS total FROM orders GROUP BY orders.tenant_id), anon_2 AS (SELECT anon_1.tenant_id AS tenant_id FROM anon_1 WHERE anon_1.total > (SELECT sum(anon_1.total) / 40 AS x FROM anon_1)) SELECT tenants.name, anon_1.total FROM tenants JOIN anon_1 ON anon_1.tenant_id = tenants.tenant_id WHERE tenants.tenant_id IN (SELECT anon_2.tenant_id FROM anon_2) ORDER BY anon_1.total DESC LIMIT 5;
SELECT anon_1.tenant_id, anon_1.rank_1 FROM (SELECT orders.tenant_id AS tenant_id, rank() OVER (ORDER BY sum(orders.amount) DESC) AS rank_1 FROM orders GROUP BY orders.tenant_id) AS anon_1 WHERE anon_1.rank_1 <= 5 ORDER BY 2, 1;
SELECT t.tenant_id, l.order_id, l.amount FROM tenants AS t JOIN LATERAL (SELECT orders.order_id AS order_id, orders.amount AS amount FROM orders WHERE orders.tenant_id = t.tenant_id ORDER BY orders.amount DESC NULLS LAST, orders.order_id LIMIT 1) AS l ON true WHERE t.plan = 'team' ORDER BY t.tenant_id;
SELECT users.tenant_id, users.user_id FROM users WHERE users.tags @> ARRAY['a']::TEXT[] AND users.tags && ARRAY['b', 'c']::TEXT[] ORDER BY 1, 2 LIMIT 5;
SELECT users.profile ->> 'city' AS city, count(users.user_id) AS c FROM users WHERE CAST((users.profile ->> 'level') AS INTEGER) >= 3 GROUP BY users.profile ->> 'city' ORDER BY c DESC, city;
SELECT EXISTS (SELECT 1 FROM orders, tenants WHERE tenants.tenant_id = orders.tenant_id AND tenants.plan = 'business' AND orders.amount > 999) AS anon_1;
SELECT o1.order_id, o2.order_id FROM orders AS o1 JOIN orders AS o2 ON o1.tenant_id = o2.tenant_id AND o1.user_id = o2.user_id AND o1.order_id < o2.order_id WHERE o1.tenant_id = 9 ORDER BY 1, 2 LIMIT 8;
-- Rails
SELECT "tenants".* FROM "tenants" WHERE "tenants"."plan" = 'free' ORDER BY "tenants"."tenant_id" ASC LIMIT 3;
SELECT DISTINCT "tenants".* FROM "tenants" INNER JOIN "users" ON "users"."tenant_id" = "tenants"."tenant_id" WHERE "users"."age" > 74 ORDER BY "tenants"."name" LIMIT 6;
SELECT COUNT(DISTINCT "users"."tenant_id") FROM "users" INNER JOIN "orders" ON "orders"."tenant_id" = "users"."tenant_id" AND "orders"."user_id" = "users"."user_id" WHERE "orders"."status" IN ('paid', 'shipped');
SELECT 1 AS one FROM "users" WHERE "users"."email" = 'user3@t7.example' AND "users"."tenant_id" = 7 LIMIT 1;
SELECT COUNT(*) AS count_all, "orders"."status" AS orders_status FROM "orders" WHERE "orders"."tenant_id" = 11 GROUP BY "orders"."status" ORDER BY 2;
SELECT "orders"."user_id", SUM("orders"."amount") FROM "orders" WHERE "orders"."tenant_id" = 11 AND "orders"."user_id" IS NOT NULL GROUP BY "orders"."user_id" HAVING (SUM(amount) > 500) ORDER BY SUM("orders"."amount") DESC, 1 LIMIT 4;
SELECT "t0_r0" AS id, "t1_r1" AS user_name FROM (SELECT "tenants"."tenant_id" AS t0_r0, "users"."user_id" AS t1_r0, "users"."name" AS t1_r1 FROM "tenants" LEFT OUTER JOIN "users" ON "users"."tenant_id" = "tenants"."tenant_id" WHERE "tenants"."tenant_id" = 13) x ORDER BY t1_r0;
SELECT "events".* FROM "events" WHERE "events"."tenant_id" = 9 AND "events"."kind" != 'view' ORDER BY "events"."at" DESC, "events"."event_id" LIMIT 5 OFFSET 5;
SELECT "users".* FROM "users" WHERE ("users"."tenant_id" = 2 AND ("users"."age" < 25 OR "users"."age" IS NULL)) AND "users"."active" = TRUE ORDER BY user_id;
SELECT MAX("orders"."created") AS max_created, "orders"."tenant_id" AS t FROM "orders" GROUP BY "orders"."tenant_id" ORDER BY max_created DESC, t LIMIT 3;
SELECT "items".* FROM "items" WHERE "items"."product_id" IN (SELECT "products"."product_id" FROM "products" WHERE "products"."price" > 40) AND "items"."tenant_id" = 8 ORDER BY order_id, line LIMIT 6;
-- Hibernate, Prisma, Ecto
select o1_0.tenant_id, o1_0.order_id, o1_0.amount, u1_0.name from orders o1_0 left join users u1_0 on u1_0.tenant_id = o1_0.tenant_id and u1_0.user_id = o1_0.user_id where o1_0.tenant_id = 21 order by o1_0.order_id offset 3 rows fetch first 4 rows only;
select count(o1_0.order_id) from orders o1_0 join tenants t1_0 on t1_0.tenant_id = o1_0.tenant_id where t1_0.name like 'tenant 1%' escape '';
select distinct t1_0.tenant_id, t1_0.name from tenants t1_0 where (select count(1) from users u1_0 where t1_0.tenant_id = u1_0.tenant_id and u1_0.active) > 15 order by t1_0.tenant_id limit 4;
SELECT "public"."users"."tenant_id", "public"."users"."user_id" FROM "public"."users" WHERE ("public"."users"."tenant_id" = 3 AND ("public"."users"."tenant_id","public"."users"."user_id") IN (SELECT "t1"."tenant_id", "t1"."user_id" FROM "public"."orders" AS "t1" WHERE ("t1"."amount" > 900 AND "t1"."user_id" IS NOT NULL))) ORDER BY "public"."users"."user_id" ASC OFFSET 0;
SELECT "t1"."tenant_id", "t1"."name", "aggr"."_aggr_count_users" FROM "public"."tenants" AS "t1" LEFT JOIN (SELECT "public"."users"."tenant_id", COUNT(*) AS "_aggr_count_users" FROM "public"."users" WHERE "public"."users"."age" > 60 GROUP BY "public"."users"."tenant_id") AS "aggr" ON ("t1"."tenant_id" = "aggr"."tenant_id") ORDER BY "t1"."tenant_id" LIMIT 5;
SELECT "t0"."tenant_id", COALESCE("t2"."__prisma_data__", '[]'::jsonb) FROM "tenants" AS "t0" LEFT JOIN LATERAL (SELECT jsonb_agg("t1"."j" ORDER BY "t1"."user_id") AS "__prisma_data__" FROM (SELECT "u"."user_id", jsonb_build_object('id', "u"."user_id", 'name', "u"."name") AS "j" FROM "users" AS "u" WHERE "t0"."tenant_id" = "u"."tenant_id" ORDER BY "u"."user_id" LIMIT 2) AS "t1") AS "t2" ON TRUE ORDER BY 1 LIMIT 4;
SELECT u0."tenant_id", filter(u0."n") FROM "users" AS u0;
SELECT s0."day", coalesce(s1."n", 0) FROM (SELECT d::date AS "day" FROM generate_series('2024-02-01'::timestamp, '2024-02-07', '1 day') AS d) AS s0 LEFT OUTER JOIN (SELECT so0."created"::date AS "day", count(*) AS "n" FROM "orders" AS so0 GROUP BY so0."created"::date) AS s1 ON s1."day" = s0."day" ORDER BY s0."day";
-- pages by key
SELECT order_id, amount FROM orders WHERE tenant_id = 5 AND (created, order_id) < ('2024-06-01 00:00+00', 5000) ORDER BY created DESC, order_id DESC LIMIT 5;
SELECT tenant_id, order_id FROM orders WHERE (tenant_id, order_id) > (20, 2400) ORDER BY tenant_id, order_id LIMIT 7;
SELECT count(*) OVER () AS full_count, tenant_id, name FROM tenants WHERE plan = 'team' ORDER BY name LIMIT 5 OFFSET 5;
-- permissions and feeds
SELECT e.event_id, e.kind FROM events e WHERE EXISTS (SELECT 1 FROM users u WHERE u.tenant_id = e.tenant_id AND u.user_id = e.user_id AND u.active) AND e.tenant_id = ANY ('{3,5,8}') ORDER BY e.at DESC, e.event_id LIMIT 10;
SELECT t.tenant_id, t.name, coalesce(o.n, 0) AS orders, coalesce(e.n, 0) AS events FROM tenants t LEFT JOIN (SELECT tenant_id, count(*) AS n FROM orders GROUP BY 1) o USING (tenant_id) LEFT JOIN (SELECT tenant_id, count(*) AS n FROM events GROUP BY 1) e USING (tenant_id) ORDER BY 4 DESC, 1 LIMIT 6;
SELECT x.kind, x.id FROM (SELECT 'order' AS kind, order_id AS id, created AS at FROM orders WHERE tenant_id = 17 UNION ALL SELECT 'event', event_id, at FROM events WHERE tenant_id = 17) x ORDER BY x.at DESC, x.id LIMIT 12;
SELECT status, count(*), round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent FROM orders GROUP BY status ORDER BY status;
SELECT created::date AS day, sum(amount), sum(sum(amount)) OVER (ORDER BY created::date) AS running FROM orders WHERE tenant_id = 4 GROUP BY 1 ORDER BY 1 LIMIT 10;
SELECT plan, percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY amount::float8) FROM orders JOIN tenants USING (tenant_id) GROUP BY plan ORDER BY plan;
SELECT month, count(*) AS first_orders FROM (SELECT tenant_id, user_id, date_trunc('month', min(created)) AS month FROM orders WHERE user_id IS NOT NULL GROUP BY 1, 2) x GROUP BY month ORDER BY month;
SELECT p.category, sum(i.total) AS revenue, count(DISTINCT i.tenant_id) AS buyers FROM items i JOIN products p USING (product_id) GROUP BY p.category ORDER BY revenue DESC;
SELECT t.country, p.category, sum(i.quantity) FROM tenants t JOIN items i USING (tenant_id) JOIN products p USING (product_id) GROUP BY CUBE (t.country, p.category) ORDER BY 1 NULLS LAST, 2 NULLS LAST, 3;
SELECT a.product_id, b.product_id, count(*) FROM items a JOIN items b USING (tenant_id, order_id) WHERE a.product_id < b.product_id GROUP BY 1, 2 HAVING count(*) > 20 ORDER BY 3 DESC, 1, 2 LIMIT 8;
SELECT c.name, r.rate, sum(o.amount * r.rate) FROM orders o JOIN tenants t USING (tenant_id) JOIN countries c ON c.code = t.country JOIN rates r ON r.currency = c.currency GROUP BY 1, 2 ORDER BY 1;
SELECT tenant_id, max(gap) FROM (SELECT tenant_id, created - lag(created) OVER (PARTITION BY tenant_id ORDER BY created) AS gap FROM orders) g GROUP BY tenant_id ORDER BY 2 DESC, 1 LIMIT 5;
SELECT n_orders, count(*) FROM (SELECT u.tenant_id, u.user_id, count(o.order_id) AS n_orders FROM users u LEFT JOIN orders o USING (tenant_id, user_id) GROUP BY 1, 2) h GROUP BY n_orders ORDER BY n_orders;
