-- Joins whose rows move to the shards of another table: what EXPLAIN says, which tables are made, and who may.
CREATE SCHEMA repartitioned;
SET search_path = repartitioned;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 5200000;
CREATE TABLE sales (sale_id int PRIMARY KEY, customer_id int NOT NULL, product_id int, amount numeric);
CREATE TABLE customers (customer_id int PRIMARY KEY, region text);
CREATE TABLE products (product_id bigint PRIMARY KEY, kind text);
SELECT create_distributed_table('sales', 'sale_id', shard_count => 4);
SELECT create_distributed_table('customers', 'customer_id', colocate_with => 'sales');
SELECT create_distributed_table('products', 'product_id', shard_count => 2);
INSERT INTO sales SELECT i, i % 4000, i % 3000, i FROM generate_series(1, 10000) i;
INSERT INTO customers SELECT i, 'region ' || i % 5 FROM generate_series(0, 24999) i;
INSERT INTO products SELECT i, 'kind ' || i % 3 FROM generate_series(0, 2999) i;
ANALYZE sales, customers, products;
SET shard_ext.broadcast_rows = 100;

-- by estimates: grouping on the shards leaves little to fetch
EXPLAIN (COSTS OFF) SELECT region, sum(amount) FROM sales JOIN customers USING (customer_id) GROUP BY region;
SELECT region, sum(amount) FROM sales JOIN customers USING (customer_id) GROUP BY region ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT region, sum(amount) FROM sales FULL JOIN customers USING (customer_id) GROUP BY region;
EXPLAIN (COSTS OFF) SELECT c.region, sum(amount) FROM customers c LEFT JOIN (customers d LEFT JOIN sales USING (customer_id)) USING (customer_id) GROUP BY c.region;
-- all rows would come back
EXPLAIN (COSTS OFF) SELECT region, amount FROM sales FULL JOIN customers USING (customer_id);

SET shard_ext.join_strategy = repartition;
-- whichever side compares the other's key
EXPLAIN (COSTS OFF) SELECT kind, region, count(*) FROM sales JOIN customers USING (customer_id) JOIN products USING (product_id) GROUP BY 1, 2;
EXPLAIN (COSTS OFF) SELECT sale_id, kind FROM products JOIN sales USING (product_id) ORDER BY 1 LIMIT 3;
-- tables are named after the process
CREATE FUNCTION explained(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, ANALYZE, TIMING OFF, SUMMARY OFF) ' || query LOOP
        RETURN NEXT regexp_replace(line, 'shard_ext_move_\d+_\d+', 'shard_ext_move_#', 'g');
    END LOOP;
END $$;
SELECT explained('SELECT kind, count(*) FROM sales JOIN products USING (product_id) WHERE sale_id <= 2000 GROUP BY kind ORDER BY 1');
-- no column is a key: both move
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales JOIN customers ON sales.product_id = length(region);
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales JOIN customers ON amount < length(region);
-- outer joins: of the kept side all rows move
EXPLAIN (COSTS OFF) SELECT region, count(*) FROM sales LEFT JOIN customers USING (customer_id) GROUP BY region;
EXPLAIN (COSTS OFF) SELECT region, count(*) FROM sales RIGHT JOIN customers USING (customer_id) GROUP BY region;
-- full joins: of both sides; of what is on every node, once
EXPLAIN (COSTS OFF) SELECT kind, region, count(*) FROM sales FULL JOIN customers USING (customer_id) FULL JOIN products USING (product_id) GROUP BY 1, 2;
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales FULL JOIN customers ON sales.product_id = length(region);
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales FULL JOIN generate_series(1, 5) g ON sale_id = g;
-- a join on the nullable side
EXPLAIN (COSTS OFF) SELECT count(*) FROM customers c LEFT JOIN (customers d JOIN sales USING (customer_id)) ON c.customer_id = d.customer_id;
-- subqueries in conditions
EXPLAIN (COSTS OFF) SELECT count(*) FROM customers c WHERE EXISTS (SELECT FROM sales s WHERE s.customer_id = c.customer_id AND s.amount > 100);
EXPLAIN (COSTS OFF) SELECT count(*) FROM customers c WHERE c.region = 'region 1' OR NOT EXISTS (SELECT FROM sales s WHERE s.customer_id = c.customer_id);
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales WHERE product_id IN (SELECT p.product_id / 2 FROM products p WHERE kind = 'kind 1');
-- a subquery that runs for row after row reads what was moved once
SELECT line FROM explained('SELECT ARRAY(SELECT sale_id FROM (SELECT sale_id, p.product_id FROM sales JOIN products p USING (product_id) WHERE sale_id < 10 OFFSET 0) s WHERE s.product_id = i) FROM generate_series(1, 5) i') line WHERE line ~ 'Rows Moved|Answers';

-- a transaction that writes is prepared on both nodes: its tables are not temporary, and gone before
BEGIN;
UPDATE sales SET amount = amount + 1 WHERE sale_id IN (1, 2, 3, 4, 5);
SELECT region, sum(amount) FROM sales JOIN customers USING (customer_id) GROUP BY region ORDER BY 1;
COMMIT;
SELECT count(*) FROM pg_class WHERE relname LIKE 'shard\_ext\_move%';
\c regression_worker_1
SELECT count(*) FROM pg_class WHERE relname LIKE 'shard\_ext\_move%';
\c regression
SET search_path = repartitioned;

-- another strategy
SET shard_ext.join_strategy = pull;
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales JOIN customers USING (customer_id);
DROP SCHEMA repartitioned CASCADE;
