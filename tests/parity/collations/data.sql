INSERT INTO words
SELECT i % 20, (ARRAY['z', 'ä', 'a', 'Z', 'o', 'Ö', 'B', 'ß', 'ss', '_', NULL])[1 + i % 11], (ARRAY['b', 'Ä', 'C'])[1 + i % 3], (ARRAY['x', 'É', 'e'])[1 + i % 3],
       (ARRAY['{a,Z}', '{ä}', '{B,z}'])[1 + i % 3]::text[], i
FROM generate_series(1, 88) i;
INSERT INTO notes SELECT i % 20, (ARRAY['z', 'ä', 'a', 'Z', 'o'])[1 + i / 20] FROM generate_series(0, 99) i;
INSERT INTO kinds SELECT i, (ARRAY['b', 'Ä', 'z'])[1 + i % 3] FROM generate_series(1, 9) i;
