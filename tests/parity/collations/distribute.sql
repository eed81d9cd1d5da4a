SELECT create_reference_table('kinds');
SELECT create_distributed_table('words', 'id', shard_count => 6);
SELECT create_distributed_table('notes', 'id', colocate_with => 'words');
