-- flights and planes by tail number: it spreads well (3,000 aircraft), most questions about operations follow an
-- aircraft, and flights then join planes where both are. Flights without a tail number (1 %) are kept: a NULL key has
-- a shard of its own choice. Carriers would make 16 uneven shards, airports even fewer.
SELECT create_distributed_table('planes', 'tailnum');
SELECT create_reference_table('airlines');
SELECT create_reference_table('airports');
SELECT create_distributed_table('flights', 'tailnum', colocate_with => 'planes');
-- weather belongs to hours, not to aircraft: a colocation group of its own
SELECT create_distributed_table('weather', 'time_hour');
