SELECT create_distributed_table('v', 'id', shard_count => 6);
SELECT create_distributed_table('system_user', 'id', shard_count => 6);
SELECT create_distributed_table('json_table', 'id', colocate_with => 'system_user');
