-- What administrators look at. Sizes come from the nodes, and only when a query asks for them.

CREATE VIEW shard_ext.nodes AS
SELECT n.node_id,
       n.server_name AS node_name,
       coalesce(o.host, o.hostaddr) AS host,
       o.port,
       o.dbname,
       n.should_have_shards,
       n.is_coordinator,
       n.same_collation,
       n.version_num / 10000 || '.' || n.version_num % 10000 AS version,
       (SELECT count(*) FROM shard_ext.placement p WHERE p.node_id = n.node_id) AS shard_groups
FROM shard_ext.node n
LEFT JOIN pg_catalog.pg_foreign_server s ON s.srvname = n.server_name
LEFT JOIN LATERAL (
    SELECT max(option_value) FILTER (WHERE option_name = 'host') AS host,
           max(option_value) FILTER (WHERE option_name = 'hostaddr') AS hostaddr,
           max(option_value) FILTER (WHERE option_name = 'port') AS port,
           max(option_value) FILTER (WHERE option_name = 'dbname') AS dbname
    FROM pg_catalog.pg_options_to_table(s.srvoptions)
) o ON true;
COMMENT ON VIEW shard_ext.nodes IS 'nodes, where they are, and how many shard groups they hold';

CREATE VIEW shard_ext.colocation_groups AS
SELECT g.colocation_id,
       CASE g.method WHEN 'h' THEN 'hash' WHEN 'r' THEN 'range' WHEN 'l' THEN 'list' END AS method,
       g.key_type,
       g.key_collation,
       (SELECT count(*) FROM shard_ext.shard_group s WHERE s.colocation_id = g.colocation_id) AS shard_count,
       ARRAY(SELECT t.relid FROM shard_ext.distributed_table t
             WHERE t.colocation_id = g.colocation_id ORDER BY t.relid::text) AS tables
FROM shard_ext.colocation_group g;
COMMENT ON VIEW shard_ext.colocation_groups IS 'groups of tables whose rows with equal keys are on the same node';

CREATE VIEW shard_ext.tables AS
SELECT t.relid AS table_name,
       CASE t.kind WHEN 'd' THEN 'distributed' WHEN 'r' THEN 'reference' END AS table_type,
       t.key_column AS distribution_column,
       g.method AS distribution_method,
       t.colocation_id,
       coalesce(g.shard_count, 1) AS shard_count,
       z.size,
       pg_catalog.pg_get_userbyid(c.relowner) AS table_owner,
       a.amname AS access_method
FROM shard_ext.distributed_table t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
LEFT JOIN shard_ext.colocation_groups g USING (colocation_id)
LEFT JOIN (SELECT relid, sum(size)::bigint AS size FROM shard_ext.shard_sizes() GROUP BY relid) z
       ON z.relid = t.relid;
COMMENT ON VIEW shard_ext.tables IS 'distributed and reference tables; size is that of all shards or copies in bytes';

CREATE VIEW shard_ext.shards AS
SELECT s.table_name,
       s.shard_group_id,
       s.shard_name,
       s.table_type,
       s.colocation_id,
       s.bounds,
       n.node_id,
       n.server_name AS node_name,
       z.size
FROM (
    SELECT t.relid AS table_name,
           g.shard_group_id,
           pg_catalog.quote_ident(shard_ext.shard_schema(s.nspname, g.shard_group_id)) || '.'
               || pg_catalog.quote_ident(c.relname) AS shard_name,
           'distributed' AS table_type,
           t.colocation_id,
           CASE WHEN g.is_default THEN 'DEFAULT'
                WHEN cg.method = 'h' THEN pg_catalog.format('hash %s to %s', g.hash_lower, g.hash_upper)
                WHEN cg.method = 'r' THEN pg_catalog.format('FROM (%s) TO (%s)',
                    coalesce(pg_catalog.quote_literal(g.lower), 'MINVALUE'),
                    coalesce(pg_catalog.quote_literal(g.upper), 'MAXVALUE'))
                ELSE pg_catalog.format('IN (%s)', pg_catalog.concat_ws(', ',
                    (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(v), ', ' ORDER BY i)
                     FROM pg_catalog.unnest(g.list_values) WITH ORDINALITY AS l(v, i)),
                    CASE WHEN g.has_null THEN 'NULL' END))
           END AS bounds,
           p.node_id
    FROM shard_ext.distributed_table t
    JOIN pg_catalog.pg_class c ON c.oid = t.relid
    JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    JOIN shard_ext.colocation_group cg ON cg.colocation_id = t.colocation_id
    JOIN shard_ext.shard_group g ON g.colocation_id = t.colocation_id
    LEFT JOIN shard_ext.placement p ON p.shard_group_id = g.shard_group_id
    UNION ALL
    SELECT t.relid,
           NULL,
           pg_catalog.quote_ident(CASE WHEN n.is_coordinator THEN shard_ext.reference_schema(s.nspname)
                                       ELSE s.nspname::text END)
               || '.' || pg_catalog.quote_ident(c.relname),
           'reference',
           NULL,
           NULL,
           n.node_id
    FROM shard_ext.distributed_table t
    JOIN pg_catalog.pg_class c ON c.oid = t.relid
    JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    CROSS JOIN shard_ext.node n
    WHERE t.kind = 'r'
) s
LEFT JOIN shard_ext.node n ON n.node_id = s.node_id
-- distinct in the columns of the join, so that a query without sizes does not ask for them
LEFT JOIN (
    SELECT relid, node_id, coalesce(shard_group_id, 0) AS shard_group_id, max(size) AS size
    FROM shard_ext.shard_sizes()
    GROUP BY 1, 2, 3
) z ON z.relid = s.table_name AND z.node_id = s.node_id AND z.shard_group_id = coalesce(s.shard_group_id, 0);
COMMENT ON VIEW shard_ext.shards IS 'shards of distributed tables and copies of reference tables, with their nodes and sizes in bytes';

GRANT SELECT ON shard_ext.nodes, shard_ext.colocation_groups, shard_ext.tables, shard_ext.shards TO PUBLIC;

-- As Citus names them, for scripts and dashboards written for it. They are moved to pg_catalog, where every
-- search_path sees them, since nothing can be created there directly.

CREATE VIEW shard_ext.citus_tables AS
SELECT table_name,
       table_type AS citus_table_type,
       coalesce(distribution_column::text, '<none>') AS distribution_column,
       colocation_id,
       pg_catalog.pg_size_pretty(size) AS table_size,
       shard_count,
       table_owner,
       access_method
FROM shard_ext.tables;

CREATE VIEW shard_ext.citus_shards AS
SELECT s.table_name,
       s.shard_group_id AS shardid,
       s.shard_name,
       s.table_type AS citus_table_type,
       s.colocation_id,
       n.host AS nodename,
       pg_catalog.split_part(coalesce(n.port, '5432'), ',', 1)::int AS nodeport,
       s.size AS shard_size
FROM shard_ext.shards s
LEFT JOIN shard_ext.nodes n USING (node_id);

CREATE VIEW shard_ext.citus_nodes AS
SELECT host AS nodename,
       pg_catalog.split_part(coalesce(port, '5432'), ',', 1)::int AS nodeport,
       CASE WHEN is_coordinator THEN 'coordinator' ELSE 'worker' END AS role,
       true AS active
FROM shard_ext.nodes;

ALTER VIEW shard_ext.citus_tables SET SCHEMA pg_catalog;
ALTER VIEW shard_ext.citus_shards SET SCHEMA pg_catalog;
ALTER VIEW shard_ext.citus_nodes SET SCHEMA pg_catalog;
COMMENT ON VIEW pg_catalog.citus_tables IS 'distributed and reference tables, with the columns of Citus';
COMMENT ON VIEW pg_catalog.citus_shards IS 'shards and where they are, with the columns of Citus';
COMMENT ON VIEW pg_catalog.citus_nodes IS 'nodes, with the columns of Citus';
GRANT SELECT ON pg_catalog.citus_tables, pg_catalog.citus_shards, pg_catalog.citus_nodes TO PUBLIC;
