-- COPY in every format, with everything odd that a file can hold.
COPY labels FROM STDIN;
plain	1	1.5
tab\tinside	2	\N
back\\slash	3	0
new\nline	4	0
\N	5	0
	6	0
\x41\102C	7	NaN
\.
SELECT label, tenant_id, weight FROM labels WHERE tenant_id < 8 AND (weight IS NULL OR weight IN (0, 1.5, 'NaN')) ORDER BY tenant_id, label;
COPY labels (weight, label) FROM STDIN WITH (DELIMITER '|', NULL '');
1|piped
|null weight
2|
3|\|
\.
SELECT label, weight FROM labels WHERE tenant_id IS NULL;
COPY labels FROM STDIN WITH (FORMAT csv);
"quoted, with comma",10,1
"with ""quotes""",11,2
"two
lines",12,3
,13,4
"",14,5
unquoted \N,15,
\.
SELECT label, tenant_id, weight FROM labels WHERE tenant_id BETWEEN 10 AND 15 AND weight < 6 AND weight = floor(weight) ORDER BY tenant_id, label;
COPY labels FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', ESCAPE '\', NULL 'nil');
anything;goes;here
'it\'s';20;1
'nil';21;2
nil;22;nil
\.
COPY labels FROM STDIN WITH (FORMAT csv, HEADER match);
label,tenant_id,weight
matched,23,1
\.
COPY labels FROM STDIN WITH (FORMAT csv, HEADER match);
label,tenant,weight
not matched,23,1
\.
COPY labels FROM STDIN WITH (FORMAT csv, FORCE_NULL (label), FORCE_NOT_NULL (tenant_id), NULL '0');
"0",0,0
0,"0","7"
\.
COPY labels FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL (label));
,24,1
\.
COPY labels FROM STDIN WITH (FORMAT csv, FORCE_NULL (label));
"",25,1
\.
SELECT label, tenant_id, weight FROM labels WHERE tenant_id IN (0, 20, 21, 22, 23, 24, 25) AND weight IN (0, 1, 2, 7) ORDER BY 2, 1, 3;
COPY labels (tenant_id, label) FROM STDIN WITH (FORMAT csv, ENCODING 'LATIN1');
30,plain ascii
\.
COPY labels FROM STDIN WHERE weight > 5 AND label IS NOT NULL;
kept	50	6
dropped	51	4
\N	52	7
kept too	53	8
\.
SELECT label, tenant_id FROM labels WHERE tenant_id BETWEEN 50 AND 53 ORDER BY 2;
COPY notes (tenant_id, body) FROM STDIN;
1	numbered by sequences
2	\N
3	third
\.
SELECT tenant_id, note_id, seq, body FROM notes ORDER BY note_id;
COPY notes (tenant_id) FROM STDIN WITH (FORMAT csv);
4
5
\.
SELECT tenant_id, note_id, seq, body FROM notes WHERE note_id > 10 ORDER BY note_id;
COPY users (tenant_id, user_id, email, tags, profile, score) FROM STDIN;
8	100	a@b	{x,"y z",NULL}	{"k": [1, "\\n", null]}	1e-300
9	101	c@d	\N	\N	-Infinity
\.
SELECT * FROM users WHERE user_id IN (100, 101) ORDER BY tenant_id, user_id;
COPY items (tenant_id, order_id, line, product_id, price) FROM STDIN;
2	1	90	5	1.25
3	2	91	6	\N
\.
SELECT * FROM items WHERE line > 89 ORDER BY line;
COPY readings FROM STDIN;
2024-02-10	200	1.5
2024-01-10	201	\N
2030-12-31	202	3
\.
COPY sales FROM STDIN (FORMAT csv);
north,5000,1.10
unheard of,5001,2.20
,5002,3.30
\.
SELECT day, sensor FROM readings WHERE sensor >= 200 ORDER BY sensor;
SELECT region, sale_id FROM sales WHERE sale_id >= 5000 ORDER BY sale_id;
COPY countries FROM STDIN;
BR	Brazil	BRL
MX	Mexico	MXN
\.
SELECT * FROM countries ORDER BY code;
COPY countries FROM STDIN;
PE	Peru	PEN
BR	Again	BRL
\.
SELECT count(*) FROM countries WHERE code = 'PE';
COPY users (tenant_id, user_id, email) FROM STDIN;
8	110	fine@x
8	111	not an address
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
8	110	fine@x
8	1	twice@x
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
8	112	fine@x
8888	1	no such tenant@x
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
eight	112	fine@x
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
8	number	fine@x
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
8	112
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
8	112	fine@x	more
\.
COPY users (tenant_id, user_id, email) FROM STDIN;
\N	112	fine@x
\.
COPY users (user_id, email) FROM STDIN;
112	fine@x
\.
COPY labels FROM STDIN WITH (FORMAT csv);
"never closed,1,1
\.
COPY items (tenant_id, total) FROM STDIN;
\.
COPY labels (label, nothing) FROM STDIN;
\.
COPY labels (label, label) FROM STDIN;
\.
COPY labels FROM STDIN WITH (FORMAT xml);
\.
COPY labels FROM STDIN WITH (DELIMITER 'ab');
\.
COPY labels FROM '/nonexistent/file';
SELECT count(*) FROM users WHERE user_id BETWEEN 110 AND 112;
COPY tenants TO STDOUT;
COPY tenants (name, tenant_id) TO STDOUT WITH (FORMAT csv, HEADER);
COPY users TO STDOUT WITH (FORMAT csv, FORCE_QUOTE (name, email), NULL 'nil');
COPY items TO STDOUT;
COPY items (total) TO STDOUT;
COPY labels TO STDOUT WITH (FORMAT csv, FORCE_QUOTE *);
COPY countries TO STDOUT;
COPY (SELECT tenant_id, count(*) FROM orders GROUP BY 1 ORDER BY 1) TO STDOUT WITH (FORMAT csv);
COPY (SELECT label, weight FROM labels ORDER BY label, weight) TO STDOUT WITH (FORMAT binary);
COPY (INSERT INTO labels VALUES ('via copy', 1, 1) RETURNING label) TO STDOUT;
