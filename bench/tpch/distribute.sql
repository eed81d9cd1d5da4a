-- The tables of TPC-H by their keys: orders with its lines, parts with who supplies them, customers alone.
SELECT create_reference_table('region');
SELECT create_reference_table('nation');
SELECT create_reference_table('supplier');
SELECT create_distributed_table('orders', 'o_orderkey', colocate_with => 'none', shard_count => :shards);
SELECT create_distributed_table('lineitem', 'l_orderkey', colocate_with => 'orders');
SELECT create_distributed_table('part', 'p_partkey', colocate_with => 'none', shard_count => :shards);
SELECT create_distributed_table('partsupp', 'ps_partkey', colocate_with => 'part');
SELECT create_distributed_table('customer', 'c_custkey', colocate_with => 'none', shard_count => :shards);
