-- Citus' older names of its functions about nodes, privileges and descriptions.

CREATE FUNCTION pg_catalog.master_add_node(
    nodename text, nodeport int, groupid int DEFAULT -1, noderole text DEFAULT 'primary', nodecluster text DEFAULT 'default')
RETURNS int LANGUAGE sql
AS 'SELECT pg_catalog.citus_add_node(nodename, nodeport, groupid, noderole, nodecluster)';
CREATE FUNCTION pg_catalog.master_remove_node(nodename text, nodeport int)
RETURNS void LANGUAGE sql
AS 'SELECT pg_catalog.citus_remove_node(nodename, nodeport)';
CREATE FUNCTION pg_catalog.master_get_active_worker_nodes(OUT node_name text, OUT node_port bigint)
RETURNS SETOF record LANGUAGE sql
AS 'SELECT node_name, node_port FROM pg_catalog.citus_get_active_worker_nodes()';

REVOKE EXECUTE ON FUNCTION
    pg_catalog.citus_add_node(text, int, int, text, text),
    pg_catalog.citus_remove_node(text, int),
    pg_catalog.citus_set_coordinator_host(text, int, text, text),
    pg_catalog.citus_set_node_property(text, int, text, bool),
    pg_catalog.master_add_node(text, int, int, text, text),
    pg_catalog.master_remove_node(text, int)
FROM PUBLIC;

COMMENT ON FUNCTION pg_catalog.citus_add_node(text, int, int, text, text) IS 'add a node, named host:port: see shard_ext.add_node';
COMMENT ON FUNCTION pg_catalog.citus_remove_node(text, int) IS 'remove a node: see shard_ext.remove_node';
COMMENT ON FUNCTION pg_catalog.citus_set_coordinator_host(text, int, text, text) IS 'make this database a node that gets no shards unless told to: see shard_ext.add_node';
COMMENT ON FUNCTION pg_catalog.citus_set_node_property(text, int, text, bool) IS 'set a property of a node: see shard_ext.set_node_property';
COMMENT ON FUNCTION pg_catalog.citus_get_active_worker_nodes() IS 'nodes other than this database: see shard_ext.nodes';
COMMENT ON FUNCTION pg_catalog.citus_is_coordinator() IS 'whether this database is a coordinator';
COMMENT ON FUNCTION pg_catalog.master_add_node(text, int, int, text, text) IS 'older name of citus_add_node';
COMMENT ON FUNCTION pg_catalog.master_remove_node(text, int) IS 'older name of citus_remove_node';
COMMENT ON FUNCTION pg_catalog.master_get_active_worker_nodes() IS 'older name of citus_get_active_worker_nodes';
