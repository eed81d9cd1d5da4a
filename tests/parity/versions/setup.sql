-- What major versions of PostgreSQL do differently: matters where workers run another one than the coordinator.
CREATE COLLATION german (provider = icu, locale = 'de');
CREATE TABLE v (
    id int PRIMARY KEY,
    n numeric,
    f float8,
    t text,
    word text COLLATE "und-x-icu",
    wort text COLLATE german,
    i interval,
    big bigint,
    j json,
    jb jsonb,
    tx xid8,
    mr int4multirange,
    tags text[],
    v tsvector,
    p polygon
);
-- names that newer versions have as keywords
CREATE TABLE system_user (
    system_user text CHECK (system_user <> ''),
    id int,
    json_array int[] DEFAULT '{1}',
    json_value text,
    absent int GENERATED ALWAYS AS (id + length(system_user)) STORED,
    PRIMARY KEY (id, system_user)
);
CREATE UNIQUE INDEX json_scalar ON system_user (id, (system_user || 'x')) WHERE system_user <> 'none';
CREATE INDEX period ON system_user (json_value, system_user);
CREATE TABLE json_table (id int, system_user text, virtual int, FOREIGN KEY (id, system_user) REFERENCES system_user);
