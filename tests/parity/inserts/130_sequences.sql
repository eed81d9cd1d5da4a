-- nextval once a row, in the order of the rows; currval, lastval and setval.
CREATE SEQUENCE mine;
SELECT nextval('mine'), currval('mine'), lastval();
INSERT INTO stepped (v) VALUES ('a') RETURNING k;
SELECT currval('steps'), lastval();
INSERT INTO stepped (v) VALUES ('a'), ('b'), ('c') RETURNING k, v;
SELECT currval('steps'), lastval();
INSERT INTO stepped (v) SELECT 'row ' || i FROM generate_series(1, 20) i;
SELECT k, v FROM stepped ORDER BY k;
SELECT setval('steps', 5000);
INSERT INTO stepped DEFAULT VALUES RETURNING k;
SELECT setval('steps', 6000, false);
INSERT INTO stepped DEFAULT VALUES RETURNING k;
INSERT INTO stepped VALUES (nextval('steps'), 'x' || nextval('mine')), (nextval('steps'), 'x' || nextval('mine')) RETURNING *;
INSERT INTO stepped VALUES (nextval('mine') + nextval('mine'), currval('mine')::text) RETURNING *;
INSERT INTO stepped SELECT nextval('mine') * 10000, i FROM generate_series(1, 5) i RETURNING *;
INSERT INTO stepped SELECT k + 1000000 + nextval('mine'), v FROM stepped WHERE k < 200 ORDER BY k;
SELECT * FROM stepped ORDER BY k;
INSERT INTO serials (v) VALUES ('p') RETURNING id = currval('serials_id_seq'), other = currval('serials_other_seq'), lastval() = currval('serials_other_seq');
SELECT pg_get_serial_sequence('serials', 'id'), currval(pg_get_serial_sequence('serials', 'id')) = (SELECT max(id) FROM serials);
PREPARE p (text) AS INSERT INTO serials (v) VALUES ($1), ($1 || '2') RETURNING id, other, v;
EXECUTE p ('a');
EXECUTE p ('b');
EXECUTE p ('c');
EXECUTE p ('d');
EXECUTE p ('e');
EXECUTE p ('f');
EXECUTE p ('g');
DO $$
DECLARE a bigint; b bigint;
BEGIN
    FOR i IN 1 .. 10 LOOP
        INSERT INTO serials (v) VALUES ('loop') RETURNING id INTO a;
        b := currval('serials_id_seq');
        IF a <> b THEN RAISE EXCEPTION 'currval % is not %', b, a; END IF;
    END LOOP;
END $$;
INSERT INTO serials (v) VALUES ('after') RETURNING id, other;
COPY serials (v, w) FROM STDIN;
copied	1
copied	2
copied	3
\.
SELECT id, other, v, w FROM serials WHERE v = 'copied' ORDER BY id;
SELECT currval('serials_id_seq') = (SELECT max(id) FROM serials);
COPY always_ids (k, v) FROM STDIN;
1	copied
2	copied
\.
SELECT * FROM always_ids ORDER BY id;
COPY always_ids (k, id, v) FROM STDIN;
1	999	given
\.
INSERT INTO always_ids (k, v) VALUES (5, 'last') RETURNING *;
BEGIN;
INSERT INTO serials (v) VALUES ('rolled back') RETURNING id;
ROLLBACK;
INSERT INTO serials (v) VALUES ('gap') RETURNING id;
INSERT INTO serials (v) VALUES (NULL), ('error') , (lpad('', 1 / (SELECT 0 FROM regions WHERE region = 1)));
INSERT INTO serials (v) VALUES ('later') RETURNING id;
ALTER SEQUENCE serials_id_seq RESTART WITH 100000;
INSERT INTO serials (v) VALUES ('restarted') RETURNING id;
DROP SEQUENCE mine;
-- RETURNING is computed with each row
INSERT INTO default_ids (v) VALUES ('x'), ('y'), ('z') RETURNING id - currval('default_ids_id_seq'), v;
INSERT INTO default_ids (v) SELECT 'w' FROM generate_series(1, 3) RETURNING id - lastval(), nextval('default_ids_id_seq') - id;
INSERT INTO serials (v) VALUES ('x'), ('y') RETURNING id - currval('serials_id_seq'), other - lastval(), v;
