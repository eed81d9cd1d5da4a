-- fill: authors (author_id, name, born, home, languages, active, meta)
SELECT i, (ARRAY['Åsa', 'Zoë', 'adam', 'Bert', 'émile', 'Çelik', 'dora', '_x', 'Ünal', 'Eve'])[1 + i % 10] || ' ' || i, date '1930-02-28' + i * 397,
       CASE WHEN i % 7 <> 0 THEN ROW('street ' || i % 5, 10000 + i, (ARRAY['Rome', 'Oslo', NULL])[1 + i % 3])::address END,
       (ARRAY['{en}', '{de,en}', '{}', NULL, '{fr,it,en}']::text[])[1 + i % 5]::text[], CASE WHEN i % 6 <> 0 THEN int4range(1950 + i, 1960 + i + i % 9) END,
       jsonb_build_object('rank', i % 6, 'prizes', to_jsonb((ARRAY['{}', '{a}', '{a,b}']::text[])[1 + i % 3]::text[]), 'site', jsonb_build_object('url', 'http://a' || i, 'up', i % 2 = 0))
FROM generate_series(1, 60) i;
-- fill: documents (author_id, document_id, title, body, kind, code, pages, published, price, data)
SELECT 1 + i % 60, i, 'Title ' || i % 97,
       CASE WHEN i % 11 <> 0 THEN (ARRAY['The quick brown foxes', 'Databases are sharded', 'A lazy dog slept', 'Searching texts quickly', 'Rows and columns'])[1 + i % 5]
           || ' ' || (ARRAY['jumped over fences', 'in the cold winter', 'while running', 'and nothing happened'])[1 + i % 4] END,
       (enum_range(NULL::genre))[1 + i % 4], CASE WHEN i % 4 <> 0 THEN (i * 7) || '-' || i % 10 END, CASE WHEN i % 9 <> 0 THEN 1 + i * 13 % 400 END,
       timestamptz '2019-12-30 22:30:00+00' + i * interval '41 hours 13 minutes', CASE WHEN i % 8 <> 0 THEN (i * 77 % 5000)::numeric / 100 END,
       jsonb_build_object('n', i % 10, 'parts', jsonb_build_array(i % 3, i % 5, 'x'), 'by', jsonb_build_object('name', 'p' || i % 6), 'opt', CASE WHEN i % 2 = 0 THEN i END)
FROM generate_series(1, 600) i;
-- fill: loans
SELECT i, CASE WHEN i % 9 <> 0 THEN 1 + i * 3 % 60 ELSE 61 END, i * 3 % 600, (ARRAY['anna', 'Bob', 'ćiro', 'Anna', 'zed', NULL])[1 + i % 6], CASE WHEN i % 13 <> 0 THEN daterange(date '2024-01-01' + i % 90, date '2024-01-05' + i % 90 + i % 20) END,
       (i % 50)::numeric::money
FROM generate_series(1, 500) i;
-- fill: shelves
SELECT 's' || i, i % 4, CASE WHEN i > 1 THEN 's' || i / 2 END FROM generate_series(1, 31) i;
INSERT INTO tags SELECT t, upper(t) FROM unnest(ARRAY['a', 'b', 'en', 'fr', 'x']) t;
INSERT INTO local_members VALUES ('anna', '2020-01-01', true), ('Bob', '2021-05-05', false), ('zed', NULL, NULL), ('nobody', '2022-02-02', true);
