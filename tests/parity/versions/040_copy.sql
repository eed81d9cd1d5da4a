-- The nodes read the text of COPY, unless their version reads it otherwise.
COPY v (id, i, t) FROM STDIN;
501	1.99 years	text
502	\N	text
503	2 days 1.5 mons	\N
\.
COPY v (i, id, t) FROM STDIN WITH (FORMAT csv, FORCE_NULL (t), HEADER);
i,id,t
1.99 years,504,""
"1 day, 2:00",505,"a ""quoted"" text"
\.
COPY v (id, i) FROM STDIN;
506	1.99 years and more
\.
COPY v (id, n, i) FROM STDIN WHERE id > 507;
507	1.5	1.99 years
508	2.5	1.99 years
\.
SELECT id, i, t, n FROM v WHERE id > 500 ORDER BY id;
DELETE FROM v WHERE id > 500;
