-- Nodes with other default collations than the coordinator's: German by ICU, and C.
CREATE TABLE words (id int, w text, c char(4), v varchar(9), tags text[], n int);
CREATE TABLE notes (id int, w text, PRIMARY KEY (id, w));
CREATE TABLE kinds (id int PRIMARY KEY, w text);
