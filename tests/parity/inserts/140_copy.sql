-- COPY FROM in every format, its errors, and COPY TO.
COPY accounts (id, name, balance) FROM STDIN;
1001	plain	5
1002	tab\tand\\slash	5.5
1003	new\nline	0
1004	\x41\102	1
\.
COPY accounts (id, name, balance, region, active, seen) FROM STDIN WITH (FORMAT csv, HEADER);
id,name,balance,region,active,seen
1011,"quoted, with ""quotes""",1,2,t,3
1012,"two
lines",2,,f,4
1013,'single',3,1,true,5
\.
COPY accounts (id, name) FROM STDIN WITH (FORMAT csv, HEADER MATCH);
id,name
1021,matched
\.
COPY accounts (id, name) FROM STDIN WITH (FORMAT csv, HEADER MATCH);
id,nome
1022,not matched
\.
COPY accounts (id, name) FROM STDIN WITH (FORMAT csv, HEADER MATCH);
id
1022,not matched
\.
COPY nullable FROM STDIN WITH (FORMAT csv, FORCE_NULL (v), NULL 'none');
1,"none"
2,none
3,""
none,x
\.
COPY nullable FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL (v));
11,
12,""
,x
\.
COPY nullable FROM STDIN WITH (FORMAT csv, DELIMITER '|', QUOTE '''', ESCAPE '!');
21|'it!'s'
22|'a|b'
23|!
\.
COPY nullable FROM STDIN WITH (DELIMITER ';', NULL 'NULL');
31;a b
NULL;NULL
32;x\;y
\.
COPY nullable FROM STDIN WITH (ENCODING 'LATIN1');
41	caf
\.
COPY nullable FROM STDIN WHERE k % 2 = 0 AND v LIKE 'y%';
50	yes
51	yes
52	no
\N	yes
54	yellow
\.
COPY nullable FROM STDIN;
\.
COPY nullable (v) FROM STDIN;
only v
another
\.
COPY nullable (v, k) FROM STDIN;
turned	61
\.
COPY serials (v) FROM STDIN;
default
\.
COPY generated (k, a) FROM STDIN;
1	2
2	\N
\.
COPY generated FROM STDIN;
3	4
\.
COPY generated (k, a, b) FROM STDIN;
3	4	5
\.
COPY filler FROM STDIN;
1	one	2
2	\N	\N
\.
COPY shapes (k, home, homes, n, d, c, color, j, ts, r, bytes, f) FROM STDIN;
1	(a,1)	{"(a,1)",NULL}	{1,NULL}	4	code	blue	{"a": "\\\\"}	2024-01-01 00:00+02	[1,3)	\\x00ff	NaN
\.
COPY shapes (k, d) FROM STDIN;
2	4
3	5
\.
COPY shapes (k, c) FROM STDIN;
2	x
3	\N
\.
COPY shapes (k, color) FROM STDIN;
2	green
3	purple
\.
-- errors: nothing is kept
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1102	negative	-1
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1101	twice	1
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
x	bad	1
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1102	bad	x
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1102	short
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1102	long	1	2
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
1102	\N	1
\.
COPY accounts (id, name, balance) FROM STDIN;
1101	fine	1
\N	null	1
\.
COPY accounts (id, name, region) FROM STDIN;
1101	fine	1
1102	no such region	100
\.
COPY accounts (id, name) FROM STDIN WITH (FORMAT csv);
1101,"not closed
\.
COPY accounts (id, nothing) FROM STDIN;
COPY accounts (id, id) FROM STDIN;
COPY accounts FROM STDIN WITH (FORMAT nothing);
COPY accounts FROM STDIN WITH (FORMAT csv, DELIMITER 'ab');
COPY accounts FROM '/nonexistent/file';
COPY accounts (id, name) FROM PROGRAM 'printf "1201\tprogram\n1202\tagain\n"';
COPY accounts (id, name) FROM PROGRAM 'printf "1203\tprogram\n"; exit 3';
COPY members (account, email) FROM STDIN;
1	a@b
1	A@B
\.
COPY by_day FROM STDIN;
2024-01-05	1
2024-02-05	2
\.
-- refused: 23514
COPY by_day FROM STDIN;
2024-01-05	1
2030-02-05	2
\.
COPY by_zone FROM STDIN;
a	1
\N	2
\.
COPY regions (region, name) FROM STDIN;
71	copied
72	copied too
\.
COPY regions (region, name) FROM STDIN;
73	copied three
73	copied four
\.
COPY copies (id, v) FROM STDIN;
1	a
2	b
\.
COPY active_accounts (id, name) FROM STDIN;
1301	view
\.
COPY account_labels FROM STDIN;
1302	label/2
\.
BEGIN;
COPY nullable FROM STDIN;
900	rolled back
\.
SELECT count(*) FROM nullable WHERE k = 900;
ROLLBACK;
BEGIN;
COPY accounts (id, name) FROM STDIN;
1401	kept
\.
SAVEPOINT s;
COPY accounts (id, name) FROM STDIN;
1402	lost
1401	again
\.
ROLLBACK TO s;
COPY accounts (id, name) FROM STDIN;
1403	kept
\.
COMMIT;
BEGIN;
TRUNCATE nullable;
COPY nullable FROM STDIN WITH (FREEZE);
1	frozen
\.
COMMIT;
COPY nullable FROM STDIN WITH (FREEZE);
1	not now
\.
SET ROLE parity_writer;
COPY history FROM STDIN;
COPY secrets FROM STDIN;
COPY accounts (id, name) FROM PROGRAM 'true';
COPY history TO STDOUT;
RESET ROLE;
-- TO
COPY (SELECT * FROM accounts WHERE id > 1000 ORDER BY id) TO STDOUT;
COPY (SELECT * FROM accounts WHERE id > 1000 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE (name, balance), NULL 'nil');
COPY (SELECT id, name FROM accounts WHERE id > 1000 ORDER BY id) TO STDOUT WITH (FORMAT binary);
COPY (SELECT id, name, active FROM accounts WHERE id > 1000 ORDER BY id) TO STDOUT WITH (FORMAT csv, DELIMITER ';', QUOTE '''', FORCE_QUOTE *);
COPY accounts TO STDOUT;
COPY accounts (name, id) TO STDOUT WITH (FORMAT csv);
COPY generated TO STDOUT;
COPY generated (b) TO STDOUT;
COPY filler TO STDOUT;
COPY regions TO STDOUT;
COPY accounts (nothing) TO STDOUT;
COPY (INSERT INTO accounts (id, name) VALUES (1501, 'copied out') RETURNING id, name) TO STDOUT;
COPY (INSERT INTO accounts (id, name) SELECT 1510 + i, 'copied out' FROM generate_series(1, 3) i RETURNING id, name) TO STDOUT;
COPY (INSERT INTO history SELECT id, 55, name FROM accounts WHERE id < 5 RETURNING account, what) TO STDOUT WITH (FORMAT csv);
COPY (UPDATE accounts SET seen = 9 WHERE id IN (1, 2) RETURNING id, seen) TO STDOUT;
COPY (DELETE FROM accounts WHERE id = 1501 RETURNING *) TO STDOUT;
COPY active_accounts TO STDOUT;
COPY (SELECT region, count(*) FROM accounts GROUP BY region ORDER BY 1) TO STDOUT;
