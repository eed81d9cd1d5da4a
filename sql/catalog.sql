-- The catalogs of shard_ext: what is distributed, how, and where. Written by the extension's functions
-- alone; a change by hand is noticed (triggers below) but not checked. Like PostgreSQL's own catalogs they
-- have no foreign keys. Column order is known to src/catalog/read.rs.

CREATE SCHEMA IF NOT EXISTS shard_ext;
COMMENT ON SCHEMA shard_ext IS 'catalogs, views and functions of the sharding extension shard_ext';
GRANT USAGE ON SCHEMA shard_ext TO PUBLIC;

CREATE SEQUENCE shard_ext.node_id_seq AS int4;
CREATE SEQUENCE shard_ext.colocation_id_seq AS int4;
CREATE SEQUENCE shard_ext.shard_group_id_seq START WITH 102008;
COMMENT ON SEQUENCE shard_ext.node_id_seq IS 'ids of nodes';
COMMENT ON SEQUENCE shard_ext.colocation_id_seq IS 'ids of colocation groups';
COMMENT ON SEQUENCE shard_ext.shard_group_id_seq IS 'ids of shard groups';

CREATE TABLE shard_ext.node (
    node_id            int4 CONSTRAINT node_pkey PRIMARY KEY,
    server_name        name NOT NULL CONSTRAINT node_server_name_key UNIQUE,
    should_have_shards bool NOT NULL DEFAULT true,
    is_coordinator     bool NOT NULL,
    same_collation     bool NOT NULL,
    version_num        int4 NOT NULL,
    system_identifier  text,
    database_oid       oid NOT NULL,
    lacking_functions  oid[] NOT NULL DEFAULT '{}',
    lacking_collations oid[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE shard_ext.node IS 'databases that hold shards; how to connect to each is in its foreign server';
COMMENT ON COLUMN shard_ext.node.node_id IS 'never used again, not even after the node was removed';
COMMENT ON COLUMN shard_ext.node.server_name IS 'name of the node and of its foreign server';
COMMENT ON COLUMN shard_ext.node.should_have_shards IS 'whether new shards may be placed on the node';
COMMENT ON COLUMN shard_ext.node.is_coordinator IS 'whether it is this very database';
COMMENT ON COLUMN shard_ext.node.same_collation IS 'whether its default collation sorts like the one of this database';
COMMENT ON COLUMN shard_ext.node.version_num IS 'server_version_num when the node was last checked';
COMMENT ON COLUMN shard_ext.node.system_identifier IS 'identifier of its database cluster, from pg_control; NULL where the node does not tell';
COMMENT ON COLUMN shard_ext.node.database_oid IS 'oid of its database in that cluster';
COMMENT ON COLUMN shard_ext.node.lacking_functions IS 'PostgreSQL''s own functions here that its version lacks or defines otherwise: they run here';
COMMENT ON COLUMN shard_ext.node.lacking_collations IS 'PostgreSQL''s own collations here that it lacks or that sort otherwise there';

CREATE TABLE shard_ext.colocation_group (
    colocation_id int4 CONSTRAINT colocation_group_pkey PRIMARY KEY,
    method        "char" NOT NULL CHECK (method IN ('h', 'r', 'l')),
    shard_count   int4 NOT NULL,
    key_type      regtype NOT NULL,
    key_collation text
);
COMMENT ON TABLE shard_ext.colocation_group IS 'groups of tables whose rows with equal keys are on the same node';
COMMENT ON COLUMN shard_ext.colocation_group.method IS 'h: hash, r: range, l: list';
COMMENT ON COLUMN shard_ext.colocation_group.shard_count IS 'number of shards a table was distributed with; 0 for range and list';
COMMENT ON COLUMN shard_ext.colocation_group.key_type IS 'type of the distribution columns; of a domain, its base type';
COMMENT ON COLUMN shard_ext.colocation_group.key_collation IS 'collation of the distribution columns; NULL for types without';

CREATE TABLE shard_ext.distributed_table (
    relid         regclass CONSTRAINT distributed_table_pkey PRIMARY KEY,
    kind          "char" NOT NULL CHECK (kind IN ('d', 'r')),
    key_column    name,
    colocation_id int4,
    CHECK ((kind = 'd') = (key_column IS NOT NULL AND colocation_id IS NOT NULL))
);
CREATE INDEX distributed_table_colocation_id_idx ON shard_ext.distributed_table (colocation_id);
COMMENT ON TABLE shard_ext.distributed_table IS 'distributed and reference tables';
COMMENT ON COLUMN shard_ext.distributed_table.kind IS 'd: distributed, r: reference';
COMMENT ON COLUMN shard_ext.distributed_table.key_column IS 'the distribution column';
COMMENT ON COLUMN shard_ext.distributed_table.colocation_id IS 'the colocation group, of a distributed table';

CREATE TABLE shard_ext.shard_group (
    shard_group_id int8 CONSTRAINT shard_group_pkey PRIMARY KEY,
    colocation_id  int4 NOT NULL,
    ordinal        int4 NOT NULL,
    hash_lower     int4,
    hash_upper     int4,
    lower          text,
    upper          text,
    list_values    text[],
    has_null       bool NOT NULL DEFAULT false,
    is_default     bool NOT NULL DEFAULT false
);
CREATE INDEX shard_group_colocation_id_idx ON shard_ext.shard_group (colocation_id);
COMMENT ON TABLE shard_ext.shard_group IS 'the keys that each shard group of a colocation group takes';
COMMENT ON COLUMN shard_ext.shard_group.shard_group_id IS 'part of the names of the schemas that hold the shards';
COMMENT ON COLUMN shard_ext.shard_group.ordinal IS 'position in the colocation group';
COMMENT ON COLUMN shard_ext.shard_group.hash_lower IS 'hash: lowest hash of a key, inclusive';
COMMENT ON COLUMN shard_ext.shard_group.hash_upper IS 'hash: highest hash of a key, inclusive';
COMMENT ON COLUMN shard_ext.shard_group.lower IS 'range: lowest key, inclusive; NULL: unbounded';
COMMENT ON COLUMN shard_ext.shard_group.upper IS 'range: end of the keys, exclusive; NULL: unbounded';
COMMENT ON COLUMN shard_ext.shard_group.list_values IS 'list: the keys';
COMMENT ON COLUMN shard_ext.shard_group.has_null IS 'list: whether NULL is one of the keys';
COMMENT ON COLUMN shard_ext.shard_group.is_default IS 'range, list: takes the keys of no other shard group';

CREATE TABLE shard_ext.placement (
    shard_group_id int8 CONSTRAINT placement_pkey PRIMARY KEY,
    node_id        int4 NOT NULL
);
CREATE INDEX placement_node_id_idx ON shard_ext.placement (node_id);
COMMENT ON TABLE shard_ext.placement IS 'the node that each shard group is on';

CREATE TABLE shard_ext.commit_record (
    gid     text COLLATE "C" CONSTRAINT commit_record_pkey PRIMARY KEY,
    node_id int4 NOT NULL,
    created timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE shard_ext.commit_record IS 'transactions prepared on nodes that are to be committed there; gone when they are';
COMMENT ON COLUMN shard_ext.commit_record.gid IS 'global identifier of the prepared transaction';

SELECT pg_catalog.pg_extension_config_dump('shard_ext.node', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.colocation_group', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.distributed_table', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.shard_group', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.placement', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.commit_record', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.node_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.colocation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('shard_ext.shard_group_id_seq', '');

GRANT SELECT ON
    shard_ext.node, shard_ext.colocation_group, shard_ext.distributed_table,
    shard_ext.shard_group, shard_ext.placement, shard_ext.commit_record
TO PUBLIC;
