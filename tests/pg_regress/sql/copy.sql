-- COPY: what only the extension says. What PostgreSQL says on plain tables is in tests/parity.
CREATE SCHEMA copying;
SET search_path = copying;
ALTER SEQUENCE shard_ext.shard_group_id_seq RESTART 3000000;

CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, age int CHECK (age > 0), joined date DEFAULT '2024-01-01');
SELECT create_distributed_table('users', 'id', shard_count => 4, colocate_with => 'none');

-- a worker's errors name the user's line; only the key is parsed here
COPY users (id, name, age) FROM STDIN;
1	one	1
2	two	2
3	three	none
4	four	4
\.
COPY users (id, name, age) FROM STDIN WITH (FORMAT csv, HEADER);
id,name,age
1,"one
of several lines",1
2,two,2
3,three,0
\.
COPY users (id, name, age) FROM STDIN;
1	one	1
2	two	2
1	one again	1
\.
COPY users (id, name, age) FROM STDIN;
1	one	1
two	two	2
\.
COPY users FROM STDIN;
1	one	1	2024-02-02
2	two	2
\.
SELECT count(*) FROM users;

-- many batches of one COPY: lines are found in any of them
SET shard_ext.copy_buffer_size = '256kB';
\copy users (id, name, age) FROM PROGRAM 'seq 1 20000 | awk ''{ print $1 "\t" "a name that takes some room in the buffers of the coordinator" "\t" ($1 == 17654 ? "x" : 1) }'''
\copy users (id, name, age) FROM PROGRAM 'seq 1 20000 | awk ''{ print $1 "\t" "a name that takes some room in the buffers of the coordinator" "\t1" }'''
RESET shard_ext.copy_buffer_size;
SELECT count(*), min(id), max(id), count(DISTINCT name), min(joined), max(joined) FROM users;

-- nothing is kept of what fails, everything else of the transaction is
BEGIN;
COPY users (id, name) FROM STDIN;
30001	kept
\.
SAVEPOINT s;
COPY users (id, name) FROM STDIN;
30002	lost
30001	lost
\.
ROLLBACK TO s;
COPY users (id, name) FROM STDIN;
30003	kept
\.
COMMIT;
SELECT id, name, joined FROM users WHERE id > 30000 ORDER BY id;

-- rows that no shard takes
CREATE TABLE readings (day date, value int);
SELECT create_distributed_table('readings', 'day', 'range');
COPY readings FROM STDIN;
2024-01-01	1
\.
SELECT shard_ext.add_range_shard('readings', '2024-01-01', '2024-02-01') > 0;
COPY readings FROM STDIN;
2024-01-01	1
2024-02-01	2
\.
COPY readings FROM STDIN WITH (FORMAT csv);
2024-01-01,1
,2
\.
COPY readings (value) FROM STDIN;
3
\.
SELECT count(*) FROM readings;

-- reference tables: all copies, with the same computed values
CREATE TABLE codes (id serial PRIMARY KEY, code text UNIQUE, made timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random());
SELECT create_reference_table('codes');
COPY codes (code) FROM STDIN;
a
b
c
\.
COPY codes (code) FROM STDIN;
d
a
\.
SELECT md5(string_agg(c::text, ',' ORDER BY id)) AS local FROM codes c \gset
\c regression_worker_1
SELECT count(*), md5(string_agg(c::text, ',' ORDER BY id)) = :'local' AS same FROM copying.codes c;
\c regression_worker_2
SELECT count(*), md5(string_agg(c::text, ',' ORDER BY id)) = :'local' AS same FROM copying.codes c;
\c regression
SET search_path = copying;

-- out
COPY (SELECT id, name FROM users WHERE id > 30000 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE (name));
DELETE FROM users WHERE id < 30003;
COPY users TO STDOUT;
COPY users (name, id) TO STDOUT WITH (FORMAT csv, HEADER);

DROP SCHEMA copying CASCADE;
