-- Documents with everything PostgreSQL can search and compute: text search, jsonpath, arrays, ranges, composites,
-- collations, views over views, functions in SQL and PL/pgSQL.
CREATE TYPE address AS (street text, zip int, city text);
CREATE TYPE genre AS ENUM ('essay', 'novel', 'poem', 'report');
CREATE DOMAIN isbn AS text CHECK (VALUE ~ '^[0-9-]+$');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE authors (
    author_id int PRIMARY KEY, name text NOT NULL, born date, home address, languages text[], active int4range, meta jsonb
);
CREATE TABLE documents (
    author_id int NOT NULL, document_id int NOT NULL, title text NOT NULL, body text, kind genre NOT NULL, code isbn, pages positive,
    published timestamptz, price numeric(8, 2), data jsonb, search tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(body, ''))) STORED,
    PRIMARY KEY (author_id, document_id)
);
CREATE INDEX ON documents USING gin (search);
CREATE INDEX ON documents USING gin (data jsonb_path_ops);
CREATE TABLE loans (loan_id bigint PRIMARY KEY, author_id int NOT NULL, document_id int NOT NULL, member text COLLATE "C", span daterange, fee money);
CREATE TABLE shelves (shelf text PRIMARY KEY, room int, parent text);
CREATE TABLE tags (tag text PRIMARY KEY, label text);
CREATE TABLE local_members (member text, joined date, vip bool);

CREATE FUNCTION full_title(d documents) RETURNS text LANGUAGE sql STABLE AS 'SELECT d.kind || '': '' || d.title';
CREATE FUNCTION price_class(p numeric) RETURNS text LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN p IS NULL THEN ''?'' WHEN p < 10 THEN ''cheap'' WHEN p < 30 THEN ''fair'' ELSE ''dear'' END';
CREATE FUNCTION age_of(born date, at date DEFAULT '2024-06-30') RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RETURN extract(year FROM age(at, born)); END';
CREATE FUNCTION works(who int) RETURNS TABLE (title text, kind genre) LANGUAGE sql STABLE AS
    'SELECT d.title, d.kind FROM documents d WHERE d.author_id = who ORDER BY d.document_id';
CREATE FUNCTION count_loans(who int) RETURNS bigint LANGUAGE plpgsql STABLE AS
    'BEGIN RETURN (SELECT count(*) FROM loans l WHERE l.author_id = who); END';
CREATE FUNCTION keep_longest(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN length(b) > length(coalesce(a, '''')) OR length(b) = length(a) AND b < a THEN b ELSE a END';
CREATE AGGREGATE longest_text(text) (SFUNC = keep_longest, STYPE = text);

CREATE VIEW novels AS SELECT * FROM documents WHERE kind = 'novel';
CREATE VIEW long_novels AS SELECT author_id, document_id, title, pages FROM novels WHERE pages > 150;
CREATE VIEW author_totals AS
    SELECT a.author_id, a.name, count(d.document_id) AS documents, sum(d.pages) AS pages, max(d.published) AS latest
    FROM authors a LEFT JOIN documents d USING (author_id) GROUP BY a.author_id, a.name;
CREATE VIEW loaned AS SELECT l.loan_id, l.member, d.title, d.author_id, d.document_id FROM loans l JOIN documents d USING (author_id, document_id);
CREATE VIEW guarded WITH (security_barrier) AS SELECT author_id, document_id, title, price FROM documents WHERE price IS NOT NULL;
CREATE VIEW everything AS
    SELECT 'document' AS what, title AS name, author_id FROM documents UNION ALL
    SELECT 'author', name, author_id FROM authors UNION ALL SELECT 'tag', label, NULL FROM tags;

-- what a role may see
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'parity_reader') THEN CREATE ROLE parity_reader; END IF; END $$;
CREATE POLICY few ON documents TO parity_reader USING (author_id < 10 OR kind = 'poem') WITH CHECK (author_id < 10);
CREATE POLICY mine ON authors TO parity_reader USING (author_id = nullif(current_setting('app.author', true), '')::int OR author_id > 50);
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE authors ENABLE ROW LEVEL SECURITY;
