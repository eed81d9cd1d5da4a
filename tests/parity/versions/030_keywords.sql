SELECT system_user FROM system_user ORDER BY id;
SELECT system_user, count(*), max(json_value) FROM system_user GROUP BY system_user;
SELECT id, system_user, json_array, absent FROM system_user WHERE system_user = 'user 3' AND json_array[1] = 1 ORDER BY id;
SELECT system_user FROM system_user WHERE id = 4;
SELECT json_value, quote_ident(json_value) FROM system_user WHERE id < 8 ORDER BY id;
SELECT s.system_user, j.virtual AS system_user FROM system_user s JOIN json_table j ON s.id = j.id ORDER BY s.id;
SELECT system_user FROM (SELECT system_user || 'x' AS system_user, id FROM system_user) json_exists WHERE id = 5;
WITH json_query AS (SELECT system_user, id FROM system_user WHERE id % 2 = 0) SELECT count(system_user) FROM json_query;
SELECT row_number() OVER system_user FROM system_user WHERE id = 3 WINDOW system_user AS (ORDER BY system_user);
BEGIN;
INSERT INTO system_user (id, system_user) VALUES (100, 'new') RETURNING system_user, json_array, absent;
INSERT INTO system_user (id, system_user) VALUES (100, 'new') ON CONFLICT (id, system_user) DO UPDATE SET json_value = excluded.system_user || system_user.system_user RETURNING *;
INSERT INTO system_user (id, system_user) SELECT id + 200, system_user || '!' FROM system_user WHERE id < 20 RETURNING system_user;
UPDATE system_user SET json_value = system_user WHERE id < 9 RETURNING system_user, json_value;
UPDATE system_user SET json_array = ARRAY[virtual] FROM json_table WHERE json_table.id = system_user.id RETURNING *;
DELETE FROM system_user WHERE system_user = 'user 2!' RETURNING system_user;
MERGE INTO json_table USING system_user s ON s.id = json_table.id WHEN MATCHED AND s.system_user <> 'user 3' THEN UPDATE SET virtual = s.absent WHEN MATCHED THEN DELETE;
SELECT * FROM json_table;
ROLLBACK;
INSERT INTO system_user (id, system_user) VALUES (300, '');
INSERT INTO system_user (id, system_user) VALUES (4, 'user 4');
INSERT INTO json_table VALUES (300, 'nobody', 1);
COPY system_user (system_user, id) FROM STDIN;
copied	400
\.
COPY (SELECT system_user, id FROM system_user WHERE id >= 39 ORDER BY id) TO STDOUT;
DELETE FROM system_user WHERE id = 400;
