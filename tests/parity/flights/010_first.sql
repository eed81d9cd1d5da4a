-- The shapes every user meets first, on real data.
SELECT count(*) FROM flights;
SELECT * FROM flights WHERE tailnum = 'N14228' ORDER BY time_hour, flight;
SELECT count(*), avg(dep_delay), min(dep_delay), max(arr_delay), sum(distance) FROM flights;
SELECT carrier, count(*), avg(arr_delay) FROM flights GROUP BY carrier ORDER BY 2 DESC, 1;
SELECT origin, dest, count(*) FROM flights GROUP BY origin, dest HAVING count(*) > 300 ORDER BY 3 DESC, 1, 2 LIMIT 20;
SELECT tailnum, count(*) FROM flights GROUP BY tailnum ORDER BY 2 DESC, 1 LIMIT 10;
SELECT count(*) FROM flights WHERE tailnum IS NULL;
SELECT tailnum, carrier, flight, dep_delay FROM flights WHERE dep_delay IS NOT NULL ORDER BY dep_delay DESC, flight, tailnum LIMIT 15;
SELECT p.manufacturer, count(*), avg(f.dep_delay) FROM flights f JOIN planes p USING (tailnum) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10;
SELECT a.name, count(*) FROM flights f JOIN airlines a USING (carrier) GROUP BY a.name ORDER BY 2 DESC, 1;
SELECT ap.name, count(*) FROM flights f JOIN airports ap ON ap.faa = f.dest GROUP BY ap.name ORDER BY 2 DESC, 1 LIMIT 10;
SELECT f.flight, f.dest, p.model, a.name FROM flights f JOIN planes p USING (tailnum) JOIN airlines a USING (carrier) WHERE f.tailnum = 'N14228' ORDER BY f.time_hour, f.flight;
SELECT count(*) FROM flights f LEFT JOIN planes p USING (tailnum) WHERE p.tailnum IS NULL;
SELECT w.origin, avg(w.wind_speed), max(w.temp), count(*) FROM weather w GROUP BY w.origin;
SELECT f.origin, avg(f.dep_delay), avg(w.precip) FROM flights f JOIN weather w ON w.time_hour = f.time_hour AND w.origin = f.origin GROUP BY f.origin ORDER BY 1;
SELECT DISTINCT carrier FROM flights ORDER BY carrier;
SELECT count(DISTINCT tailnum) FROM flights;
SELECT extract(isodow FROM time_hour) AS weekday, count(*) FROM flights GROUP BY 1 ORDER BY 1;
SELECT tailnum, rank() OVER (PARTITION BY carrier ORDER BY dep_delay DESC NULLS LAST, time_hour, flight) FROM flights WHERE tailnum IN ('N14228', 'N24211', 'N619AA') ORDER BY 1, 2;
WITH busy AS (SELECT tailnum FROM flights WHERE tailnum IS NOT NULL GROUP BY tailnum HAVING count(*) > 90)
SELECT p.tailnum, p.model, p.seats FROM planes p JOIN busy USING (tailnum) ORDER BY 1;
SELECT * FROM planes WHERE tailnum = 'no such plane';
SELECT tailnum / 2 FROM flights;
SELECT 1 / (distance - distance) FROM flights WHERE tailnum = 'N14228';
