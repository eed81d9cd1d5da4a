SELECT create_reference_table('airlines');
SELECT create_reference_table('airports');
SELECT create_distributed_table('planes', 'tailnum');
SELECT create_distributed_table('flights', 'tailnum', colocate_with => 'planes');
SELECT create_distributed_table('weather', 'time_hour');
