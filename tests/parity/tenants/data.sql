-- fill: items (tenant_id, order_id, line, product_id, quantity, price)
SELECT 1 + i % 40, i, l, 1 + (i * 3 + l) % 60, 1 + (i + l) % 5, round((i * 13 % 900)::numeric / 10, 2)
FROM generate_series(1, 1500) i, generate_series(1, 2) l;
-- fill: events
SELECT i, 1 + i * 7 % 45, CASE WHEN i % 4 <> 0 THEN 1 + i % 20 END, (ARRAY['click', 'view', 'buy'])[1 + i % 3],
       jsonb_build_object('n', i % 10, 'ok', i % 2 = 0), timestamp '2024-03-01' + i * interval '17 minutes'
FROM generate_series(1, 2000) i;
-- fill: labels
SELECT CASE WHEN i % 10 <> 0 THEN 'label ' || i % 25 END, CASE WHEN i % 6 <> 0 THEN 1 + i % 42 END, (i % 13)::real / 3
FROM generate_series(1, 300) i;
-- fill: readings
SELECT date '2024-01-10' + i % 70, i % 7, CASE WHEN i % 17 <> 0 THEN sqrt(i) END FROM generate_series(1, 700) i;
-- fill: sales
SELECT (ARRAY['north', 'south', 'east', 'west', NULL])[1 + i % 5], i, (i * 31 % 1000)::numeric / 10 FROM generate_series(1, 400) i;
INSERT INTO notes (tenant_id, body)
VALUES (1, 'body 1'), (2, 'body 2'), (3, 'body 3'), (1, 'body 4'), (5, 'body 5'), (40, 'body 6'), (2, DEFAULT);
