INSERT INTO v
SELECT id, id * 0.37 - 5, id * 1.5 - 20, (ARRAY['select', 'Added words', 'plain', 'system_user', 'foo bar foo', '1.99 years', 'adding', 'Zebra', 'übung'])[1 + id % 9],
       (ARRAY['Zebra', 'apfel', 'Äpfel', 'Apfel', 'zebra', 'ähre', 'b-c', 'bc', 'B c', NULL])[1 + id % 10],
       (ARRAY['Zebra', 'apfel', 'Äpfel', 'Apfel', 'zebra', 'ähre', 'b-c', 'bc', 'B c', NULL])[1 + id % 10],
       make_interval(months => id % 40 - 20, days => id), 1234567890123::bigint * id * id,
       json_build_object('a', id, 'b', NULL), jsonb_build_object('a', id, 'b', NULL), (id * 7 % 50)::text::xid8,
       int4multirange(int4range(id, id + 3), int4range(id + 10, id + 12)), ARRAY['a', 'tag' || id % 4], to_tsvector('simple', 'one two ' || id % 5),
       polygon(circle(point(id, id % 7), 2))
  FROM generate_series(1, 60) id;
INSERT INTO system_user (id, system_user, json_value) SELECT id, 'user ' || id % 7, (ARRAY['x', 'select', 'json_value', 'merge_action'])[1 + id % 4] FROM generate_series(1, 40) id;
INSERT INTO json_table SELECT id, 'user ' || id % 7, id * 3 FROM generate_series(1, 40, 2) id;
