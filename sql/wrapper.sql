CREATE FOREIGN DATA WRAPPER shard_ext VALIDATOR shard_ext.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER shard_ext IS 'nodes of the cluster, one foreign server each, with the connection options of libpq';
COMMENT ON FUNCTION shard_ext.fdw_validator(text[], oid) IS 'checks the options of the servers and user mappings of nodes';
