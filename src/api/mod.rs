mod citus_nodes;
mod nodes;
mod tables;
