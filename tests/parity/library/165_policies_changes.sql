-- Row level security where rows are read and locked before they change.
GRANT SELECT, UPDATE, INSERT, DELETE ON documents, authors, loans TO parity_reader;
SET ROLE parity_reader;
UPDATE documents SET price = price + random() * 0 WHERE author_id < 12 AND kind <> 'poem';
SELECT author_id, document_id FROM documents WHERE price IS NOT NULL ORDER BY price DESC, document_id LIMIT 3 FOR UPDATE;
SELECT author_id, document_id FROM documents WHERE author_id = 3 ORDER BY document_id LIMIT 3 FOR UPDATE;
SELECT count(ctid), count(xmin) FROM documents WHERE author_id = 3;
BEGIN;
UPDATE documents SET author_id = author_id + 1 WHERE author_id < 4 AND document_id % 5 = 0 AND document_id > 5;
ROLLBACK;
BEGIN;
UPDATE documents SET author_id = 77 WHERE author_id = 3;
ROLLBACK;
BEGIN;
DELETE FROM documents USING loans WHERE loans.document_id = documents.document_id AND documents.title > 'm' AND false;
MERGE INTO documents USING (SELECT 4 AS a, 9005 AS d UNION ALL SELECT 40, 9006) s ON documents.author_id = s.a AND documents.document_id = s.d
WHEN NOT MATCHED AND s.a < 10 THEN INSERT (author_id, document_id, title, kind) VALUES (s.a, s.d, 'merged', 'poem');
SELECT title FROM documents WHERE author_id = 4 AND document_id = 9005;
MERGE INTO documents USING (SELECT 40 AS a, 9006 AS d) s ON documents.author_id = s.a AND documents.document_id = s.d
WHEN NOT MATCHED THEN INSERT (author_id, document_id, title, kind) VALUES (s.a, s.d, 'merged', 'poem');
ROLLBACK;
BEGIN;
-- unordered
DELETE FROM documents WHERE ctid IN (SELECT ctid FROM documents ORDER BY author_id DESC, document_id LIMIT 3) RETURNING author_id, document_id;
-- unordered
DELETE FROM documents WHERE title > '' AND ctid IN (SELECT ctid FROM documents ORDER BY author_id, document_id LIMIT 30 FOR UPDATE SKIP LOCKED) RETURNING author_id, document_id;
-- unordered
UPDATE documents SET price = 7 WHERE ctid = ANY (ARRAY(SELECT ctid FROM documents ORDER BY author_id, document_id LIMIT 3)) RETURNING author_id, document_id, price;
ROLLBACK;
BEGIN;
WITH raised AS (UPDATE documents SET price = price + 1 WHERE kind <> 'poem' RETURNING author_id, document_id, price), back AS (DELETE FROM loans USING raised WHERE loans.author_id = raised.author_id AND loans.document_id = raised.document_id RETURNING loan_id) SELECT (SELECT count(*) FROM raised), (SELECT sum(price) FROM raised), count(*) FROM back;
SELECT count(*), sum(price) FROM documents;
SELECT count(*) FROM loans;
ROLLBACK;
BEGIN;
WITH moved AS (UPDATE documents SET author_id = 77 WHERE author_id < 5 RETURNING document_id) SELECT count(*) FROM moved;
ROLLBACK;
BEGIN;
UPDATE documents SET author_id = 77 WHERE ctid IN (SELECT ctid FROM documents WHERE author_id < 5 LIMIT 3);
ROLLBACK;
RESET ROLE;
REVOKE DELETE ON documents FROM parity_reader;
SET ROLE parity_reader;
DELETE FROM documents WHERE ctid IN (SELECT ctid FROM documents WHERE author_id < 5 LIMIT 3);
RESET ROLE;
GRANT DELETE ON documents TO parity_reader;
