SELECT create_reference_table('tags');
SELECT create_distributed_table('authors', 'author_id', shard_count => 4);
SELECT create_distributed_table('documents', 'author_id', colocate_with => 'authors');
SELECT create_distributed_table('loans', 'loan_id', shard_count => 3, colocate_with => 'none');
SELECT create_distributed_table('shelves', 'shelf', shard_count => 2);
