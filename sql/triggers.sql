-- Changes of the catalogs that do not come from the extension's functions (pg_restore, a repair by hand)
-- make all sessions read them again. commit_record is not cached.

CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shard_ext.node
    FOR EACH STATEMENT EXECUTE FUNCTION shard_ext.catalog_changed();
CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shard_ext.colocation_group
    FOR EACH STATEMENT EXECUTE FUNCTION shard_ext.catalog_changed();
CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shard_ext.distributed_table
    FOR EACH STATEMENT EXECUTE FUNCTION shard_ext.catalog_changed();
CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shard_ext.shard_group
    FOR EACH STATEMENT EXECUTE FUNCTION shard_ext.catalog_changed();
CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shard_ext.placement
    FOR EACH STATEMENT EXECUTE FUNCTION shard_ext.catalog_changed();
COMMENT ON FUNCTION shard_ext.catalog_changed() IS
    'trigger: makes all sessions read the extension''s catalogs anew';
