-- Aggregates that the shards compute in part: every aggregate of PostgreSQL over every kind of argument, DISTINCT,
-- FILTER, grouping sets; types, NULLs, empty inputs and digits as on one server.

-- variances of integers and numerics have PostgreSQL's digits
SELECT var_pop(age), var_samp(age), variance(age), stddev_pop(age), stddev_samp(age), stddev(age) FROM users;
SELECT var_pop(age::smallint), var_samp(age::smallint), stddev_pop(age::smallint), stddev(age::smallint) FROM users;
SELECT var_pop(order_id), var_samp(order_id), stddev_pop(order_id), stddev_samp(order_id) FROM orders;
SELECT var_pop(amount), var_samp(amount), variance(amount), stddev_pop(amount), stddev_samp(amount), stddev(amount) FROM orders;
SELECT status, user_id, var_pop(amount), var_samp(amount), stddev_pop(amount), stddev_samp(amount), stddev(order_id) FROM orders GROUP BY status, user_id;
SELECT age, variance(age), stddev_pop(age), var_samp(score::numeric(20, 9)), stddev(score::numeric(20, 9)) FROM users GROUP BY age;
SELECT tenant_id % 7, stddev(price / 1000), stddev(price * 1e12), variance(price * 1e-9), stddev_pop(price ^ 5), var_pop(quantity) FROM items GROUP BY 1;
SELECT var_samp(x), stddev(x), var_pop(x), stddev_pop(x) FROM (SELECT amount AS x FROM orders WHERE order_id = 17) o;
SELECT var_samp(amount), stddev(amount), var_pop(amount), stddev_pop(amount), variance(age), stddev_pop(score) FROM orders JOIN users USING (tenant_id, user_id) WHERE order_id < 0;
SELECT variance(CASE WHEN order_id = 5 THEN 'NaN'::numeric ELSE amount END), stddev(CASE WHEN order_id = 9 THEN 'Infinity'::numeric END), var_pop(CASE WHEN order_id = 9 THEN '-Infinity'::numeric ELSE 1 END) FROM orders;
SELECT avg(CASE WHEN order_id = 5 THEN 'NaN'::numeric ELSE amount END), sum(CASE WHEN order_id = 9 THEN 'Infinity'::numeric ELSE 1 END), avg(CASE WHEN order_id < 9 THEN '-Infinity'::numeric ELSE 1 END) FROM orders;
SELECT stddev(7), variance(2.50), var_pop(1::bigint), stddev_pop(0.1::float8), stddev(NULL::int) FROM users;
SELECT status, stddev(amount) FILTER (WHERE user_id > 15), variance(user_id) FILTER (WHERE false), var_pop(user_id) FILTER (WHERE amount > 990) FROM orders GROUP BY status;
-- of floats within rounding, far from zero too
SELECT var_pop(score), var_samp(score), variance(score), stddev_pop(score), stddev_samp(score), stddev(score) FROM users;
SELECT var_pop(score::real), var_samp(score::real), stddev_pop(score::real), stddev(score::real), avg(score::real) FROM users;
SELECT variance(1e5 + score), stddev(1e5 + score), var_pop(score * 1e-6), stddev_pop(score * 1e140) FROM users;
SELECT tenant_id % 3, age / 10, variance(score), stddev_pop(score), avg(score), sum(score) FROM users GROUP BY 1, 2;
SELECT sensor, variance(value), stddev(value) FROM readings GROUP BY sensor HAVING variance(value) > 1 ORDER BY stddev(value);
SELECT label, var_pop(weight), stddev(weight), avg(weight), sum(weight) FROM labels GROUP BY label;
SELECT variance(CASE WHEN user_id = 3 THEN 'NaN'::float8 ELSE score END), stddev(CASE WHEN user_id = 3 AND tenant_id = 3 THEN 'Infinity'::float8 ELSE 1 END) FROM users;
SELECT corr(age, score), covar_pop(age, score), covar_samp(score, age), regr_slope(age, score), regr_intercept(age, score), regr_r2(score, age) FROM users;
SELECT regr_count(age, score), regr_avgx(age, score), regr_avgy(age, score), regr_sxx(age, score), regr_syy(age, score), regr_sxy(age, score) FROM users;
SELECT active, tenant_id % 2, corr(age, score), covar_pop(score, age), regr_count(age, score), regr_avgx(score, age), regr_sxy(age, 1e4 + score) FROM users GROUP BY 1, 2;
SELECT regr_count(age, score), corr(age, score), regr_avgx(age, score), covar_samp(age, score) FROM users WHERE age IS NULL;
SELECT corr(age, score) FILTER (WHERE active), regr_slope(age, score) FILTER (WHERE user_id = 1 AND tenant_id = 1) FROM users;

-- sum, avg, min and max of every type that has them
SELECT sum(amount::money), min(amount::money), max(amount::money) FROM orders;
SELECT sum(created - '2024-01-01'), avg(created - '2024-01-01'), min(created - '2024-01-01'), max(created - '2024-01-01') FROM orders;
SELECT status, avg(created - timestamptz '2024-01-01'), avg(user_id * interval '1 month 3 days') FROM orders GROUP BY status;
SELECT min(created), max(created), min(created::timestamp), max(created::date), min(created::time), max(created::timetz AT TIME ZONE 'UTC') FROM orders;
SELECT min(status), max(status) FROM orders;
SELECT user_id, min(status), max(status) FROM orders GROUP BY user_id;
SELECT min(tags), max(tags), min(ARRAY[age, user_id]), max(ARRAY[score]) FROM users;
SELECT tenant_id % 4, min(tags), max(ARRAY[age]) FROM users GROUP BY 1;
SELECT min(('10.0.' || user_id || '.' || tenant_id)::inet), max(('10.0.' || user_id || '.0/24')::inet) FROM users;
SELECT min(code), max(code), max(note), min(note), min(email), max(name) FROM orders JOIN users USING (tenant_id, user_id) JOIN tenants USING (tenant_id) LEFT JOIN countries ON code = country;
SELECT min(name COLLATE "C"), max(name COLLATE "C") FROM users;
SELECT active, min(name), max(lower(name) COLLATE "C") FROM users GROUP BY active;
SELECT min(user_id::oid), max(tenant_id::oid), max('0/1'::pg_lsn + user_id), min(tenant_id::real), max(age::smallint) FROM users;
SELECT sum(age::smallint), sum(age), sum(age::bigint), sum(age::numeric), sum(age::real), sum(age::float8), avg(age::smallint), avg(age), avg(age::bigint), avg(age::numeric), avg(age::real), avg(age::float8) FROM users;
SELECT sum(quantity), pg_typeof(sum(quantity)), pg_typeof(sum(order_id)), pg_typeof(avg(quantity)), pg_typeof(avg(price::float8)), pg_typeof(count(*)), pg_typeof(sum(price)), pg_typeof(stddev(quantity)), pg_typeof(variance(price::real)), pg_typeof(sum(price::real)) FROM items;
SELECT bit_and(user_id), bit_or(user_id::smallint), bit_xor(tenant_id::bigint), bit_and(user_id::bit(5)), bit_or(user_id::bit(5)), bit_xor(user_id::bit(5)) FROM users;
SELECT age % 4, bit_and(user_id), bit_xor(tenant_id), bool_and(active), bool_or(active), every(age > 20) FROM users GROUP BY 1;
SELECT range_agg(daterange(day, day + 2)), range_intersect_agg(daterange(day - 90, day + 90)) FROM readings;
SELECT sensor, range_agg(daterange(day, day + 1)), range_intersect_agg(numrange(sensor, 100)) FROM readings GROUP BY sensor;
SELECT range_agg(x) FROM (SELECT datemultirange(daterange(day, day + 2)) AS x FROM readings) r;

-- strings, arrays and JSON, in an order that does not show
SELECT length(string_agg(name, ', ')), length(string_agg(note, '')), string_agg(NULL::text, ','), length(string_agg(note, NULL)) FROM orders JOIN users USING (tenant_id, user_id);
SELECT user_id, length(string_agg(note, '--')), string_agg('x', '-'), string_agg(CASE WHEN order_id = 30 THEN note END, '?') FROM orders GROUP BY user_id;
SELECT length(string_agg(name::bytea, '\x00ff'::bytea)), string_agg('\x01'::bytea, ''::bytea) FROM users WHERE user_id < 3;
SELECT length(string_agg(name, '-' || user_id % 10)) FROM users;
SELECT status, length(string_agg(note, CASE WHEN user_id > 3 THEN ', ' ELSE '; ' END)) FROM orders GROUP BY status;
SELECT string_agg(note, ',') FILTER (WHERE order_id = 3), string_agg(note, ',') FILTER (WHERE false) FROM orders;
SELECT plan, (SELECT array_agg(x ORDER BY x) FROM unnest(a) x) FROM (SELECT plan, array_agg(tenant_id) AS a FROM tenants GROUP BY plan) p;
SELECT (SELECT array_agg(x ORDER BY x NULLS FIRST) FROM unnest(a) x), array_length(b, 1), cardinality(c) FROM (SELECT array_agg(age) AS a, array_agg(name) AS b, array_agg(status) AS c FROM users JOIN orders USING (tenant_id, user_id) WHERE order_id < 200) u;
SELECT array_agg(tenant_id) FROM tenants WHERE tenant_id < 0;
SELECT array_agg(NULL::int) FROM tenants WHERE tenant_id < 3;
SELECT array_agg('a'::email::email || '') FILTER (WHERE false), pg_typeof(array_agg(email)), pg_typeof(array_agg(status)) FROM users JOIN orders USING (tenant_id, user_id);
SELECT array_dims(array_agg(ARRAY[age, user_id])), array_dims(array_agg(tags)) FROM users WHERE user_id = 2;
SELECT tenant_id % 2, array_length(array_agg(email), 1), array_length(array_agg(active), 1) FROM users GROUP BY 1;
SELECT status, array_agg(1), jsonb_agg(1), json_agg(1), string_agg('a', 'b') FROM orders WHERE order_id < 40 GROUP BY status;
SELECT jsonb_array_length(jsonb_agg(profile)), json_array_length(json_agg(name)), jsonb_agg(name) FILTER (WHERE false), json_agg(name) FILTER (WHERE false) FROM users;
SELECT json_agg('x'::text), jsonb_agg(NULL::int), json_agg(NULL::text), json_agg(ARRAY[1, 2]), json_agg(ROW(1, 'a')) FROM users WHERE user_id = 2;
SELECT json_agg(1.50), json_agg(true), json_agg(profile - 'city' - 'level'), json_agg(NULL::int[]) FROM users WHERE user_id = 2;
SELECT json_agg(CASE WHEN false THEN ARRAY[user_id] END), length(json_agg(ARRAY[user_id])::text), length(json_agg(tags)::text) FROM users WHERE user_id < 5;
SELECT length(json_agg(u)::text), jsonb_array_length(jsonb_agg(u)) FROM users u WHERE user_id < 3;
SELECT length(json_agg(x)::text), length(jsonb_agg(x)::text) FROM (SELECT tenant_id, plan FROM tenants) x;
SELECT plan, (SELECT jsonb_agg(e ORDER BY e) FROM jsonb_array_elements(a) e) FROM (SELECT plan, jsonb_agg(tenant_id) AS a FROM tenants GROUP BY plan) p;
SELECT jsonb_object_agg(tenant_id, plan), length(json_object_agg(tenant_id, plan)::text) FROM tenants;
SELECT plan, jsonb_object_agg(name, country), length(json_object_agg(name, tenant_id)::text) FROM tenants GROUP BY plan;
SELECT jsonb_object_agg(NULL::text, tenant_id) FROM tenants;
SELECT json_object_agg('a', 1) FILTER (WHERE false), jsonb_object_agg('k', 7) FROM tenants;
SELECT length(xmlagg(xmlelement(name t, tenant_id))::text) FROM tenants;
SELECT plan, length(xmlagg(xmlelement(name t, name))::text) FROM tenants GROUP BY plan;
-- the order of a sorted subquery shows
SELECT string_agg(name, ',') FROM (SELECT name FROM users WHERE user_id < 3 ORDER BY name NULLS FIRST) u;
SELECT array_agg(order_id), json_agg(order_id) FROM (SELECT order_id FROM orders WHERE user_id = 3 ORDER BY order_id DESC) o;
SELECT array_agg(o), array_agg(n) FROM (SELECT order_id AS o, note AS n FROM orders WHERE order_id < 50 ORDER BY order_id) x;
SELECT s, (SELECT array_agg(e ORDER BY e) FROM unnest(a) e) FROM (SELECT s, array_agg(o) AS a FROM (SELECT status AS s, order_id AS o FROM orders WHERE order_id < 50 ORDER BY order_id) x GROUP BY s) y ORDER BY s;

-- DISTINCT
SELECT count(DISTINCT user_id), sum(DISTINCT user_id), avg(DISTINCT user_id), min(DISTINCT user_id), max(DISTINCT user_id) FROM orders;
SELECT count(DISTINCT user_id), count(*), sum(amount), avg(amount), stddev(amount) FROM orders;
SELECT count(DISTINCT user_id), count(DISTINCT status), count(DISTINCT note), sum(DISTINCT amount), count(*), max(created) FROM orders;
SELECT status, count(DISTINCT user_id), count(DISTINCT amount), count(DISTINCT note), sum(order_id) FROM orders GROUP BY status;
SELECT user_id, count(DISTINCT status), avg(DISTINCT amount), variance(DISTINCT amount), count(amount) FROM orders GROUP BY user_id;
SELECT count(DISTINCT tenant_id), sum(DISTINCT tenant_id), avg(DISTINCT tenant_id) FROM orders;
SELECT status, count(DISTINCT tenant_id), sum(DISTINCT tenant_id), count(DISTINCT user_id) FROM orders GROUP BY status;
SELECT count(DISTINCT o.tenant_id), count(DISTINCT u.tenant_id) FROM users u LEFT JOIN orders o ON o.tenant_id = u.tenant_id AND o.user_id = u.user_id AND o.status = 'paid';
SELECT count(DISTINCT user_id) FILTER (WHERE amount > 500), count(DISTINCT user_id) FILTER (WHERE status = 'paid'), count(DISTINCT user_id), count(*) FILTER (WHERE amount > 500) FROM orders;
SELECT count(DISTINCT 1000 / (user_id - 3)) FILTER (WHERE user_id <> 3), sum(1000 / (user_id - 3)) FILTER (WHERE user_id <> 3) FROM orders;
SELECT status, sum(DISTINCT 1000 / (user_id - 3)) FILTER (WHERE user_id <> 3), sum(1000 / (user_id - 3)) FILTER (WHERE user_id <> 3) FROM orders GROUP BY status;
SELECT count(DISTINCT user_id) FROM orders WHERE false;
SELECT count(DISTINCT user_id), count(DISTINCT status), count(*), sum(amount), array_agg(DISTINCT user_id) FROM orders WHERE false;
SELECT status, count(DISTINCT user_id), count(DISTINCT note) FROM orders WHERE false GROUP BY status;
SELECT count(DISTINCT 1), count(DISTINCT NULL::int), sum(DISTINCT 5), count(DISTINCT user_id) FROM orders;
SELECT count(DISTINCT 1) FROM orders WHERE false;
SELECT count(DISTINCT (user_id, status)), count(DISTINCT user_id % 5), count(DISTINCT lower(note)), count(DISTINCT amount IS NULL) FROM orders;
SELECT user_id % 3, count(DISTINCT user_id % 3), count(DISTINCT user_id), count(DISTINCT status) FROM orders GROUP BY 1;
SELECT string_agg(DISTINCT plan, ','), string_agg(DISTINCT plan, ',' ORDER BY plan DESC), array_agg(DISTINCT country ORDER BY country), count(*) FROM tenants;
SELECT array_agg(DISTINCT user_id), array_agg(DISTINCT user_id ORDER BY user_id DESC NULLS LAST), json_agg(DISTINCT user_id), string_agg(DISTINCT status::text, '+') FROM orders;
SELECT array_agg(DISTINCT user_id) FILTER (WHERE user_id < 5 OR user_id IS NULL), count(*) FROM orders;
SELECT corr(DISTINCT user_id, amount), regr_count(DISTINCT user_id, amount) FROM orders;
SELECT bool_and(DISTINCT active), bit_or(DISTINCT user_id), bit_xor(DISTINCT user_id), every(DISTINCT age > 3) FROM users;
SELECT count(DISTINCT tags), count(DISTINCT profile), count(DISTINCT score), count(DISTINCT email) FROM users;
SELECT count(DISTINCT name COLLATE "C"), count(DISTINCT upper(name)), array_agg(DISTINCT name COLLATE "C") FILTER (WHERE name < 'C' COLLATE "C") FROM users;
SELECT count(DISTINCT u.*) FROM users u WHERE user_id = 1;
SELECT kind, count(DISTINCT user_id), count(DISTINCT tenant_id), count(DISTINCT event_id), count(DISTINCT payload) FROM events GROUP BY kind;
SELECT label, count(DISTINCT tenant_id), count(DISTINCT weight) FROM labels GROUP BY label;
SELECT count(DISTINCT label), count(DISTINCT weight) FROM labels;
SELECT region, count(DISTINCT amount) FROM sales GROUP BY region;
SELECT count(DISTINCT region) FROM sales;
SELECT count(DISTINCT user_id) * 2 + count(DISTINCT status), count(DISTINCT user_id)::text || '!' FROM orders;
SELECT status FROM orders GROUP BY status HAVING count(DISTINCT user_id) > 19 ORDER BY count(DISTINCT note) DESC, status;
SELECT user_id, count(DISTINCT status) FROM orders GROUP BY user_id ORDER BY count(DISTINCT amount) DESC, user_id LIMIT 5;
SELECT sum(n) FROM (SELECT user_id, count(DISTINCT status) AS n FROM orders GROUP BY user_id) x;
SELECT t.plan, count(DISTINCT o.user_id), count(DISTINCT o.tenant_id), count(o.order_id) FROM tenants t LEFT JOIN orders o USING (tenant_id) GROUP BY t.plan;
SELECT DISTINCT count(DISTINCT user_id) AS users, status FROM orders GROUP BY status;

-- grouping sets
SELECT plan, country, count(*), sum(tenant_id), grouping(plan, country) FROM tenants GROUP BY ROLLUP (plan, country);
SELECT status, user_id, count(*), sum(amount), avg(amount), stddev(amount), min(created) FROM orders GROUP BY CUBE (status, user_id);
SELECT status, user_id % 3, count(*), grouping(status), grouping(user_id % 3) FROM orders GROUP BY GROUPING SETS ((status), (user_id % 3), (status, user_id % 3), ());
SELECT tenant_id, status, count(*), sum(amount) FROM orders WHERE tenant_id < 6 GROUP BY ROLLUP (tenant_id, status) ORDER BY tenant_id, status;
SELECT status, count(*), count(DISTINCT user_id) FROM orders GROUP BY ROLLUP (status);
SELECT status, user_id % 2 AS odd, count(DISTINCT user_id), count(DISTINCT tenant_id), count(DISTINCT note), count(*), grouping(status, user_id % 2) FROM orders GROUP BY CUBE (status, user_id % 2);
SELECT status, sum(amount) FILTER (WHERE user_id > 5), count(DISTINCT user_id) FILTER (WHERE amount > 500) FROM orders GROUP BY ROLLUP (status);
SELECT status, count(*) FROM orders WHERE false GROUP BY ROLLUP (status);
SELECT count(*), sum(amount) FROM orders WHERE false GROUP BY GROUPING SETS ((), ());
SELECT count(*), count(DISTINCT user_id) FROM orders GROUP BY GROUPING SETS ((), ());
SELECT status, count(*) FROM orders WHERE false GROUP BY GROUPING SETS ((status));
SELECT status, user_id, count(*) FROM orders WHERE user_id < 5 GROUP BY status, ROLLUP (user_id) HAVING count(*) > 30 OR grouping(user_id) = 1;
SELECT status, user_id, sum(amount), rank() OVER (PARTITION BY grouping(status, user_id) ORDER BY sum(amount) DESC) FROM orders WHERE user_id < 4 GROUP BY CUBE (status, user_id);
SELECT coalesce(status::text, 'all'), grouping(status) * 10 + count(*) FROM orders GROUP BY ROLLUP (status) ORDER BY grouping(status), status;
SELECT status, string_agg(DISTINCT user_id::text, ',' ORDER BY user_id::text), length(string_agg(note, ',')) FROM orders GROUP BY ROLLUP (status);
SELECT plan, array_length(array_agg(tenant_id), 1), jsonb_array_length(jsonb_agg(name)) FROM tenants GROUP BY ROLLUP (plan);
SELECT user_id, user_id + 1, count(*) FROM orders WHERE user_id < 4 GROUP BY ROLLUP (user_id);
SELECT date_trunc('month', created) AS m, status, sum(amount) FROM orders GROUP BY ROLLUP (m, status) ORDER BY m, status;
SELECT GROUPING(status), count(*) FROM orders GROUP BY status;
SELECT status, user_id, count(*) FROM orders WHERE user_id < 3 GROUP BY DISTINCT ROLLUP (status, user_id), ROLLUP (status);
SELECT 'x' AS x, status, count(*) FROM orders GROUP BY ROLLUP (1, 2);
SELECT plan, percentile_cont(0.5) WITHIN GROUP (ORDER BY tenant_id), mode() WITHIN GROUP (ORDER BY country) FROM tenants GROUP BY ROLLUP (plan);

-- constants, conditions, windows, odd places
SELECT sum(1), count(1), max(1), min('x'), avg(2.5), sum(1.5), bool_and(true), string_agg('a', ''), stddev(3.0) FROM users WHERE user_id = 1;
SELECT tenant_id % 2, sum(1), max('x'), count(NULL), avg(NULL::int), sum(NULL::float8) FROM users GROUP BY 1;
SELECT 1 FROM users HAVING true;
SELECT 1 FROM users HAVING false;
SELECT 1 FROM users WHERE false HAVING true;
SELECT 'none' FROM users HAVING count(*) = 0;
SELECT 1 FROM users GROUP BY ();
SELECT count(*) FROM users HAVING sum(age) IS NULL;
SELECT user_id FROM orders GROUP BY user_id HAVING user_id > 17 OR user_id IS NULL;
SELECT user_id, sum(sum(amount)) OVER (ORDER BY user_id), rank() OVER (ORDER BY avg(amount) DESC) FROM orders GROUP BY user_id;
SELECT status, count(*) OVER (), sum(count(*)) OVER (ORDER BY status ROWS 1 PRECEDING), lag(count(DISTINCT user_id)) OVER (ORDER BY status) FROM orders GROUP BY status;
SELECT age IS NULL, name IS NULL, count(*), count(age), count(name) FROM users GROUP BY 1, 2;
SELECT CASE WHEN count(*) > 100 THEN 'many' ELSE 'few' END, coalesce(sum(amount), 0), greatest(max(amount), avg(amount)), nullif(count(*), 0) FROM orders;
SELECT status, count(*) FILTER (WHERE amount > 100) * 100 / count(*), sum(amount) / nullif(count(amount), 0) = avg(amount) FROM orders GROUP BY status;
-- no group spans shards, but what is above cannot run there
SELECT tenant_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY amount), rank() OVER (ORDER BY sum(amount) DESC), array_agg(order_id ORDER BY order_id DESC) FROM orders WHERE tenant_id < 7 GROUP BY tenant_id HAVING count(*) > 3;
SELECT DISTINCT count(DISTINCT user_id), mode() WITHIN GROUP (ORDER BY status) FROM orders GROUP BY tenant_id;
SELECT tenant_id, count(DISTINCT status) > random() - 1, string_agg(DISTINCT status::text, ',') FROM orders GROUP BY tenant_id HAVING count(*) > random() - 1;
-- what does not split
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount * 2), percentile_disc(0.9) WITHIN GROUP (ORDER BY length(note)), mode() WITHIN GROUP (ORDER BY user_id % 7) FROM orders;
SELECT status, rank(500, 'x') WITHIN GROUP (ORDER BY amount, note), cume_dist(100) WITHIN GROUP (ORDER BY amount) FROM orders GROUP BY status;
SELECT user_id % 4, percentile_cont(ARRAY[0.1, 0.5]) WITHIN GROUP (ORDER BY amount) FILTER (WHERE status = 'paid'), count(*) FROM orders GROUP BY 1;
SELECT array_agg(order_id ORDER BY order_id), count(DISTINCT user_id) FROM orders WHERE order_id < 30;
SELECT name IS NULL, percentile_cont(0.5) WITHIN GROUP (ORDER BY (SELECT u.age + 1)), mode() WITHIN GROUP (ORDER BY lower(name) || age) FROM users u GROUP BY name IS NULL;
SELECT age / 10, percentile_disc(0.5) WITHIN GROUP (ORDER BY 100 / (user_id - 3)) FILTER (WHERE user_id <> 3), percentile_disc(0.1) WITHIN GROUP (ORDER BY age / 10) FROM users GROUP BY age / 10;
SELECT user_id % 4, user_id % 4 + 1, array_agg(DISTINCT user_id % 4 ORDER BY user_id % 4), mode() WITHIN GROUP (ORDER BY user_id % 4) FROM orders GROUP BY user_id % 4;
SELECT (SELECT max(x) FROM (VALUES (percentile_cont(0.5) WITHIN GROUP (ORDER BY amount * 2))) v (x)) FROM orders;
-- whoever reads a sorted subquery gets its order, and LIMIT its first rows
SELECT array_agg(o ORDER BY n) FROM (SELECT o, row_number() OVER () AS n FROM (SELECT order_id AS o FROM orders WHERE user_id = 2 ORDER BY order_id DESC) x) y;
SELECT sum(o) FROM (SELECT o FROM (SELECT order_id AS o FROM orders ORDER BY order_id DESC) x LIMIT 7) y;
SELECT min(o), max(o) FROM (SELECT o FROM (SELECT order_id AS o, status FROM orders ORDER BY order_id) x WHERE status = 'paid' OFFSET 3 LIMIT 20) y;
SELECT string_agg(name, ',') FROM (SELECT name FROM (SELECT name, user_id FROM users WHERE tenant_id < 9 ORDER BY name DESC NULLS LAST, tenant_id, user_id LIMIT 30) x WHERE user_id < 10) y;
