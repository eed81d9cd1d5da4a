-- The tables of nycflights13 (two months of flights from New York City), as plain PostgreSQL tables.
CREATE TABLE airlines (carrier text PRIMARY KEY, name text NOT NULL);

CREATE TABLE airports (
    faa text PRIMARY KEY, name text NOT NULL, lat float8, lon float8, alt int, tz int, dst "char", tzone text
);

CREATE TABLE planes (
    tailnum text PRIMARY KEY, year int, type text, manufacturer text, model text, engines int, seats int, speed int,
    engine text
);

CREATE TABLE flights (
    year int NOT NULL, month int NOT NULL, day int NOT NULL,
    dep_time int, sched_dep_time int NOT NULL, dep_delay int, arr_time int, sched_arr_time int NOT NULL, arr_delay int,
    carrier text NOT NULL REFERENCES airlines, flight int NOT NULL, tailnum text,
    origin text NOT NULL REFERENCES airports, dest text NOT NULL,
    air_time int, distance int NOT NULL CHECK (distance > 0), hour int, minute int, time_hour timestamptz NOT NULL
);
CREATE INDEX ON flights (tailnum, time_hour);

CREATE TABLE weather (
    origin text NOT NULL, year int, month int, day int, hour int, temp float8, dewp float8, humid float8, wind_dir int,
    wind_speed float8, wind_gust float8, precip float8, pressure float8, visib float8, time_hour timestamptz NOT NULL
);
CREATE INDEX ON weather (time_hour, origin);
