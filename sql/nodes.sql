-- Privileges and descriptions of the functions about nodes.

REVOKE EXECUTE ON FUNCTION
    shard_ext.add_node(text, text, int, text, jsonb),
    shard_ext.remove_node(text),
    shard_ext.set_node_property(text, text, bool),
    shard_ext.check_node(text)
FROM PUBLIC;

COMMENT ON FUNCTION shard_ext.add_node(text, text, int, text, jsonb) IS
    'add a database as a node: checks it, makes its foreign server, copies the reference tables to it; options are libpq''s, those of a user (user, password, ...) go to a user mapping of the session user';
COMMENT ON FUNCTION shard_ext.remove_node(text) IS
    'remove a node that holds no shards, with its foreign server and its copies of reference tables';
COMMENT ON FUNCTION shard_ext.set_node_property(text, text, bool) IS
    'set a property of a node: should_have_shards';
COMMENT ON FUNCTION shard_ext.check_node(text) IS
    'connect to a node and check that it can hold shards';
COMMENT ON FUNCTION shard_ext.shard_sizes() IS
    'bytes that each shard takes on its node with indexes and TOAST; asks every node once';
COMMENT ON FUNCTION shard_ext.shard_schema(text, bigint) IS
    'schema on the node that holds a shard group''s tables of a schema';
COMMENT ON FUNCTION shard_ext.reference_schema(text) IS
    'schema with the copies of a schema''s reference tables on a node that is this very database';
