INSERT INTO a
SELECT CASE WHEN i % 9 <> 0 THEN i * 7 % 13 END, CASE WHEN i % 5 <> 0 THEN i % 8 END,
       (ARRAY['a', 'b', 'ab', 'B', '', 'c d', NULL])[1 + i % 7], date '2024-01-01' + CASE WHEN i % 6 <> 0 THEN i * 5 % 14 END,
       (ARRAY['sad', 'ok', 'glad', NULL]::mood[])[1 + i % 4],
       (ARRAY['{}', '{1,2}', '{3,NULL,5}', NULL, '{7}']::text[])[1 + i % 5]::int[],
       CASE WHEN i % 4 <> 0 THEN (i * 37 % 100)::numeric / 8 END, CASE WHEN i % 7 <> 0 THEN (i * 11 % 30) / 4.0 END,
       (ARRAY[true, false, NULL])[1 + i % 3]
FROM generate_series(1, 40) i;
INSERT INTO b
SELECT CASE WHEN i % 8 <> 0 THEN i * 5 % 15 END, CASE WHEN i % 7 <> 0 THEN i % 5 END, (ARRAY['a', 'ab', 'x', NULL])[1 + i % 4],
       date '2024-01-01' + CASE WHEN i % 5 <> 0 THEN i * 3 % 13 END, (ARRAY['sad', NULL, 'glad']::mood[])[1 + i % 3],
       CASE WHEN i % 6 <> 0 THEN i % 11 - 3 END, CASE WHEN i % 5 <> 0 THEN i::numeric / 4 END,
       timestamp '2024-01-02 10:00' + CASE WHEN i % 9 <> 0 THEN i % 10 * interval '7 hours' END,
       CASE WHEN i % 4 <> 0 THEN int4range(i % 5, i % 5 + i % 3) END
FROM generate_series(1, 35) i;
INSERT INTO u
SELECT i % 10, i, (ARRAY['a', 'b', NULL])[1 + i % 3], CASE WHEN i % 4 <> 0 THEN i % 6 END, date '2024-01-01' + i % 12
FROM generate_series(1, 25) i;
INSERT INTO c
SELECT (ARRAY['a', 'b', 'ab', 'x', 'c d', NULL])[1 + i % 6], CASE WHEN i % 7 <> 0 THEN i % 12 END, CASE WHEN i % 5 <> 0 THEN i % 4 END,
       CASE WHEN i % 6 <> 0 THEN i * 1000000007::bigint END, date '2024-01-01' + CASE WHEN i % 4 <> 0 THEN i % 15 END,
       i % 9 / 2.0, CASE WHEN i % 5 <> 0 THEN jsonb_build_object('n', i % 4, 't', chr(97 + i % 3)) END
FROM generate_series(1, 30) i;
INSERT INTO r
SELECT date '2024-01-01' + i * 7 % 15, CASE WHEN i % 6 <> 0 THEN i % 10 END, (ARRAY['a', 'b', NULL, 'ab'])[1 + i % 4],
       CASE WHEN i % 5 <> 0 THEN i::numeric / 2 END, (ARRAY[true, NULL, false])[1 + i % 3]
FROM generate_series(1, 25) i;
INSERT INTO l
SELECT (ARRAY['a', 'b', 'ab', 'x', 'y', NULL])[1 + i % 6], CASE WHEN i % 5 <> 0 THEN i % 9 END, CASE WHEN i % 4 <> 0 THEN i % 7 END,
       (ARRAY['ok', NULL, 'glad']::mood[])[1 + i % 3], CASE WHEN i % 3 <> 0 THEN ROW(i % 4, (ARRAY['a', 'b', NULL])[1 + i % 3])::spot END
FROM generate_series(1, 25) i;
INSERT INTO m
SELECT (ARRAY['sad', 'ok', 'glad', NULL]::mood[])[1 + i % 4], CASE WHEN i % 5 <> 0 THEN i % 11 END, CASE WHEN i % 4 <> 0 THEN i % 6 END,
       i % 7 / 4.0, CASE WHEN i % 6 <> 0 THEN int4range(i % 4, i % 4 + i % 5) END
FROM generate_series(1, 20) i;
INSERT INTO w
SELECT (ARRAY['a', 'ab', 'b', 'x', '', NULL])[1 + i % 6], CASE WHEN i % 5 <> 0 THEN i % 11 END,
       timestamptz '2024-01-02 20:00+00' + CASE WHEN i % 4 <> 0 THEN i * interval '5 hours' END,
       (ARRAY['1 day', '7 hours', '-1 mon', '1 day 02:03:04.5', NULL]::interval[])[1 + i % 5], CASE WHEN i % 3 <> 0 THEN i % 6 + 1 END,
       CASE WHEN i % 4 <> 0 THEN decode(lpad(to_hex(i % 7 * 37), 4, '0'), 'hex') END, (ARRAY['{a}', '{}', '{a,b}', '{NULL,x}', NULL]::text[])[1 + i % 5]::text[]
FROM generate_series(1, 22) i;
INSERT INTO ref
SELECT i, (ARRAY['a', 'b', 'ab', NULL])[1 + i % 4], (ARRAY['sad', 'ok', NULL]::mood[])[1 + i % 3], CASE WHEN i % 4 <> 0 THEN i % 5 END
FROM generate_series(0, 9) i;
INSERT INTO loc
SELECT CASE WHEN i % 6 <> 0 THEN i % 11 END, (ARRAY['b', 'ab', 'x', NULL])[1 + i % 4], CASE WHEN i % 5 <> 0 THEN i % 6 END,
       date '2024-01-01' + CASE WHEN i % 4 <> 0 THEN i % 10 END
FROM generate_series(1, 15) i;
