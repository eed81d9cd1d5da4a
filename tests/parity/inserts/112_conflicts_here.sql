-- ON CONFLICT DO UPDATE that the shards cannot run by themselves: sequences, functions of the user, subqueries that follow
-- the row, keys that change.
CREATE SEQUENCE changes;
INSERT INTO accounts (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes') RETURNING *;
INSERT INTO accounts (id, name) VALUES (2, 'x'), (1, 'y'), (701, 'new'), (3, 'z') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes'), name = excluded.name || accounts.name RETURNING *;
SELECT last_value FROM changes;
INSERT INTO accounts (id, name) VALUES (1, 'x'), (2, 'x'), (702, 'x') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes') WHERE accounts.id = 2;
SELECT last_value FROM changes;
INSERT INTO accounts (id, name) VALUES (703, 'only new') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes') RETURNING id, seen;
INSERT INTO accounts AS a (id, name, balance) SELECT i, 'many' || i, i FROM generate_series(-5, 400) i WHERE i > 0 ON CONFLICT (id) DO UPDATE SET seen = twice(a.seen) + nextval('changes'), balance = a.balance + excluded.balance;
INSERT INTO accounts AS a (id, name, balance) SELECT i, 'many' || i, i FROM generate_series(1, 30) i ON CONFLICT (id) DO UPDATE SET seen = twice(a.seen), balance = a.balance + excluded.balance WHERE twice(a.id) % 3 = 0 RETURNING a.*, twice(a.id);
-- the same row twice
INSERT INTO accounts (id, name) VALUES (6, 'twice'), (6, 'twice') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes');
INSERT INTO accounts (id, name) VALUES (750, 'twice'), (750, 'twice') ON CONFLICT (id) DO UPDATE SET seen = nextval('changes');
INSERT INTO accounts (id, name) SELECT 6 + i % 2, 'twice' FROM generate_series(1, 3000) i ON CONFLICT (id) DO UPDATE SET seen = nextval('changes');
INSERT INTO accounts (id, name) SELECT 100000 + i % 2999, 'twice' FROM generate_series(1, 3000) i ON CONFLICT (id) DO UPDATE SET seen = nextval('changes');
SELECT setval('changes', 1000);
-- but not where WHERE has let it be
INSERT INTO accounts (id, name) VALUES (6, 'one'), (6, 'two'), (6, 'three') ON CONFLICT (id) DO UPDATE SET seen = twice(5), name = excluded.name WHERE excluded.name = 'three' OR twice(accounts.id) < 0 RETURNING *;
INSERT INTO accounts (id, name) VALUES (6, 'one'), (6, 'two') ON CONFLICT (id) DO UPDATE SET seen = twice(5) WHERE twice(accounts.id) < 0 RETURNING *;
-- constraints, also those of rows that would not be inserted
INSERT INTO accounts (id, name, balance) VALUES (7, 'neg', -5) ON CONFLICT (id) DO UPDATE SET balance = twice(3);
INSERT INTO accounts (id, name, balance) VALUES (7, NULL, 5) ON CONFLICT (id) DO UPDATE SET balance = twice(3);
INSERT INTO accounts (id, name, balance) VALUES (7, 'neg', 5) ON CONFLICT (id) DO UPDATE SET balance = twice(-1);
INSERT INTO accounts (id, name, balance) VALUES (7, 'fk', 5) ON CONFLICT (id) DO UPDATE SET region = twice(500);
INSERT INTO accounts (id, name, region) VALUES (7, 'fk', 1000) ON CONFLICT (id) DO UPDATE SET region = twice(1);
INSERT INTO accounts (id, name, region) VALUES (751, 'fk', 1000) ON CONFLICT (id) DO UPDATE SET region = twice(1);
INSERT INTO accounts (id, name) VALUES (NULL, 'null') ON CONFLICT (id) DO UPDATE SET region = twice(1);
INSERT INTO accounts (id, name) VALUES (1, 'x') ON CONFLICT (name) DO UPDATE SET seen = twice(1);
INSERT INTO accounts (id, name) VALUES (1, 'x') ON CONFLICT ON CONSTRAINT nothing DO UPDATE SET seen = twice(1);
INSERT INTO accounts (id, name) VALUES (1, 'x') ON CONFLICT ON CONSTRAINT accounts_by_id DO UPDATE SET seen = twice(1) RETURNING seen;
-- subqueries that follow the rows, that read the table itself
INSERT INTO accounts (id, name) VALUES (8, 'cor'), (9, 'cor'), (752, 'cor') ON CONFLICT (id) DO UPDATE SET balance = (SELECT count(*) FROM staging s WHERE s.id < excluded.id) RETURNING id, balance;
INSERT INTO accounts (id, name) VALUES (8, 'cor'), (9, 'cor') ON CONFLICT (id) DO UPDATE SET balance = (SELECT sum(balance) FROM accounts a WHERE a.id < accounts.id) RETURNING id, balance;
INSERT INTO accounts (id, name) VALUES (8, 'cor'), (9, 'cor') ON CONFLICT (id) DO UPDATE SET (balance, name) = (SELECT max(balance), min(name) FROM accounts a WHERE a.id < accounts.id), seen = twice(2) RETURNING id, balance, name, seen;
INSERT INTO accounts (id, name) VALUES (8, 'cor'), (9, 'cor') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) WHERE EXISTS (SELECT FROM history h WHERE h.account = accounts.id) OR accounts.id = 8 RETURNING id, seen;
INSERT INTO accounts (id, name) VALUES (8, 'ret'), (753, 'ret') ON CONFLICT (id) DO UPDATE SET seen = twice(1) RETURNING id, (SELECT count(*) FROM accounts a WHERE a.id <= accounts.id), (SELECT name FROM regions r WHERE r.region = accounts.region), accounts, tableoid::regclass;
WITH w AS (SELECT 8 AS id, 'with' AS name, 3 AS many) INSERT INTO accounts (id, name) SELECT id, name FROM w ON CONFLICT (id) DO UPDATE SET seen = twice((SELECT many FROM w)), name = excluded.name RETURNING id, seen, name, (SELECT many FROM w);
-- the key
INSERT INTO accounts (id, name) VALUES (10, 'key') ON CONFLICT (id) DO UPDATE SET id = 760 RETURNING *;
INSERT INTO accounts (id, name) VALUES (11, 'key'), (12, 'key'), (761, 'key') ON CONFLICT (id) DO UPDATE SET id = accounts.id + 800, name = accounts.name || excluded.name RETURNING *;
INSERT INTO accounts (id, name) VALUES (13, 'key') ON CONFLICT (id) DO UPDATE SET id = 14;
INSERT INTO accounts (id, name) VALUES (13, 'key') ON CONFLICT (id) DO UPDATE SET id = NULL;
INSERT INTO accounts (id, name) VALUES (13, 'key'), (770, 'second') ON CONFLICT (id) DO UPDATE SET id = 770;
INSERT INTO generated (k, a) VALUES (1, 1), (2, 2) ON CONFLICT (k) DO UPDATE SET k = twice(generated.k + 10), a = excluded.b + generated.b RETURNING *;
INSERT INTO generated (k, a) VALUES (1, 10), (2, 20), (3, 30) ON CONFLICT (k) DO UPDATE SET k = twice(generated.k + 10), a = excluded.b + generated.b RETURNING *, generated, length(c);
INSERT INTO generated (k, a) VALUES (3, 10) ON CONFLICT (k) DO UPDATE SET a = twice(generated.b), b = DEFAULT WHERE excluded.c <> generated.c RETURNING *;
-- indexes of expressions, partial ones
INSERT INTO members (account, email, nick) VALUES (71, 'A@x', 'a'), (72, 'A@x', 'a') ON CONFLICT (account, lower(email)) DO UPDATE SET seen = twice(members.seen), email = excluded.email RETURNING *;
INSERT INTO members (account, email) VALUES (71, 'a@X'), (73, 'a@X') ON CONFLICT (lower(email), account) DO UPDATE SET seen = twice(members.seen), email = excluded.email RETURNING *;
INSERT INTO members (account, email, nick) VALUES (71, 'c@x', 'a') ON CONFLICT (account, nick) WHERE active DO UPDATE SET email = twice(1)::text RETURNING *;
INSERT INTO members (account, email, nick, active) VALUES (71, 'd@x', 'a', false) ON CONFLICT (account, nick) WHERE active DO UPDATE SET email = twice(1)::text RETURNING *;
INSERT INTO members (account, email, nick, active) VALUES (71, 'D@x', 'b', false) ON CONFLICT (account, nick) WHERE active DO UPDATE SET email = twice(1)::text RETURNING *;
INSERT INTO members (account, email, nick) VALUES (71, 'e@x', NULL), (71, 'f@x', NULL) ON CONFLICT (account, nick) WHERE active DO UPDATE SET role = twice(2)::text RETURNING *;
-- columns of many types, dropped columns, defaults
INSERT INTO shapes (k, home, homes, n, m, d, c) VALUES (901, ('s', 1), ARRAY[('t', 2)::place], '{1,2}', '{{1},{2}}', 2, 'x') ON CONFLICT (k) DO UPDATE SET d = twice(2) RETURNING *;
INSERT INTO shapes (k, home, homes, n, m, d, c, color, j, r, bytes, f) VALUES (901, ('u', 3), NULL, '{3}', '{{4}}', 4, 'y', 'blue', '{"a": 1}', '[1,5)', '\x00ff', 'NaN')
    ON CONFLICT (k) DO UPDATE SET home = excluded.home, homes = shapes.homes || excluded.home, n[2] = twice(excluded.n[1]), m = excluded.m, d = twice(shapes.d), c = DEFAULT, color = excluded.color, j = excluded.j, r = excluded.r, bytes = excluded.bytes, f = excluded.f RETURNING *;
INSERT INTO shapes (k, d, c) VALUES (901, 2, 'z') ON CONFLICT (k) DO UPDATE SET home.zip = twice(4), d = twice(1) + 1;
INSERT INTO shapes (k, d, c) VALUES (901, 2, 'z') ON CONFLICT (k) DO UPDATE SET home.zip = twice(4), d = twice(1) RETURNING home, d, c;
INSERT INTO shapes (k, d, c) VALUES (901, 3, 'z') ON CONFLICT (k) DO UPDATE SET d = twice(1);
CREATE UNIQUE INDEX ON staging (id);
INSERT INTO staging AS s (id, b) VALUES (1, 'local'), (1000, 'local') ON CONFLICT (id) DO UPDATE SET a = twice(s.a), b = excluded.b RETURNING *;
INSERT INTO stepped (k, v) VALUES (1, 'a'), (DEFAULT, 'b') ON CONFLICT (k) DO UPDATE SET v = next_step()::text RETURNING *;
INSERT INTO stepped (k, v) VALUES (1, 'a') ON CONFLICT (k) DO UPDATE SET v = next_step()::text RETURNING *;
INSERT INTO default_ids (id, v) VALUES (1, 'a'), (2, 'b') ON CONFLICT (id) DO UPDATE SET v = nextval('changes')::text RETURNING *;
INSERT INTO default_ids (id, v) VALUES (1, 'a'), (2, 'b') ON CONFLICT (id) DO UPDATE SET v = nextval('changes') || excluded.v RETURNING *;
-- WITH clauses
WITH moved AS (DELETE FROM accounts WHERE id > 600 RETURNING *) INSERT INTO accounts (id, name, balance) SELECT id - 600, name, 1 FROM moved WHERE id < 703 ORDER BY id ON CONFLICT (id) DO UPDATE SET seen = nextval('changes'), balance = accounts.balance + excluded.balance;
WITH up AS (INSERT INTO accounts (id, name) VALUES (20, 'with'), (781, 'with') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen), name = excluded.name RETURNING *) SELECT up.*, (SELECT count(*) FROM accounts) FROM up;
WITH up AS (INSERT INTO accounts (id, name) VALUES (21, 'with'), (782, 'with') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen), id = accounts.id + 900 RETURNING *) INSERT INTO totals (account, amount) SELECT id, seen FROM up;
WITH up AS (INSERT INTO accounts (id, name) VALUES (22, 'with') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen)) UPDATE totals SET entries = 1 WHERE account > 700;
WITH up AS (INSERT INTO accounts (id, name) VALUES (783, 'a'), (783, 'b') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) RETURNING 1) SELECT count(*) FROM up;
-- statements that come again, in a transaction, in a function
PREPARE up(int, text) AS INSERT INTO accounts (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET seen = nextval('changes'), name = $2 || accounts.seen RETURNING id, name, seen;
EXECUTE up(23, 'p');
EXECUTE up(23, 'p');
EXECUTE up(784, 'p');
EXECUTE up(784, 'q');
EXECUTE up(785, 'q');
EXECUTE up(785, 'q');
EXECUTE up(785, 'q');
BEGIN;
INSERT INTO accounts (id, name) VALUES (24, 't') ON CONFLICT (id) DO UPDATE SET seen = twice(50) RETURNING seen;
INSERT INTO accounts (id, name) VALUES (24, 't') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) RETURNING seen;
SAVEPOINT s;
INSERT INTO accounts (id, name) VALUES (24, 't'), (786, 't') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) RETURNING seen;
ROLLBACK TO s;
SELECT seen FROM accounts WHERE id IN (24, 786);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO accounts (id, name) VALUES (24, 't'), (787, 't') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) RETURNING seen;
INSERT INTO accounts (id, name) VALUES (24, 't'), (787, 't') ON CONFLICT (id) DO UPDATE SET seen = twice(accounts.seen) RETURNING seen;
ROLLBACK;
CREATE FUNCTION count_up(who int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
    FOR i IN 1 .. 3 LOOP
        INSERT INTO accounts AS a (id, name) VALUES (who, 'f') ON CONFLICT (id) DO UPDATE SET seen = twice(a.seen) + i RETURNING seen INTO n;
    END LOOP;
    RETURN n;
END $$;
SELECT count_up(25), count_up(788);
-- views and row security
INSERT INTO active_accounts (id, name, balance) VALUES (26, 'view', 5), (789, 'view', 5) ON CONFLICT (id) DO UPDATE SET balance = twice(7), name = excluded.name RETURNING *;
INSERT INTO rich_accounts (id, title, balance) VALUES (26, 'view', 500), (27, 'view', 500) ON CONFLICT (id) DO UPDATE SET balance = twice(700) RETURNING *;
INSERT INTO rich_accounts (id, title, balance) VALUES (790, 'view', 500) ON CONFLICT (id) DO UPDATE SET balance = twice(7) RETURNING *;
INSERT INTO rich_accounts (id, title, balance) VALUES (790, 'view', 500) ON CONFLICT (id) DO UPDATE SET balance = twice(7) RETURNING *;
INSERT INTO loose_accounts (id, name) VALUES (28, 'loose') ON CONFLICT (id) DO UPDATE SET balance = twice(700) RETURNING *;
GRANT ALL ON SEQUENCE changes TO parity_writer;
SET ROLE parity_writer;
INSERT INTO secrets VALUES (1, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET level = nextval('changes') RETURNING *;
INSERT INTO secrets VALUES (1, 800, 'new', 2), (2, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET level = twice(3), body = secrets.body || '!' RETURNING *;
INSERT INTO secrets VALUES (1, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET level = twice(5) RETURNING *;
INSERT INTO secrets VALUES (1, 800, 'new', 9) ON CONFLICT (owner, id) DO UPDATE SET level = twice(2) RETURNING *;
INSERT INTO secrets VALUES (5, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET level = twice(2);
INSERT INTO secrets VALUES (5, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET level = twice(2);
INSERT INTO secrets VALUES (1, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET owner = 3, level = (random() * 0)::int RETURNING *;
INSERT INTO secrets VALUES (3, 800, 'new', 2) ON CONFLICT (owner, id) DO UPDATE SET owner = 6 RETURNING *;
INSERT INTO clearance VALUES (1, 1), (2, 1), (77, 1) ON CONFLICT (owner) DO UPDATE SET level = twice(clearance.level) RETURNING *;
INSERT INTO clearance VALUES (1, 100) ON CONFLICT (owner) DO UPDATE SET level = twice(0) RETURNING *;
INSERT INTO clearance VALUES (1, 1) ON CONFLICT (owner) DO UPDATE SET level = twice(1000) RETURNING *;
INSERT INTO accounts (id, name) VALUES (791, 'x') ON CONFLICT (id) DO UPDATE SET seen = twice(1);
INSERT INTO totals (account) VALUES (792) ON CONFLICT (account) DO UPDATE SET entries = twice(1);
RESET ROLE;
