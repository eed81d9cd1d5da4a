-- Every other file relies on this one: the extension, and two databases of the same server as nodes.
CREATE DATABASE regression_worker_1;
CREATE DATABASE regression_worker_2;
CREATE EXTENSION shard_ext;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS host, current_setting('port') AS port \gset
SELECT shard_ext.add_node('worker_1', :'host', :'port', 'regression_worker_1') IS NOT NULL AS added;
SELECT shard_ext.add_node('worker_2', :'host', :'port', 'regression_worker_2') IS NOT NULL AS added;
