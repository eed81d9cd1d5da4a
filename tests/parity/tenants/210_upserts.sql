-- INSERT … ON CONFLICT.
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'n') ON CONFLICT DO NOTHING;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'n') ON CONFLICT (tenant_id, user_id) DO NOTHING RETURNING *;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'n') ON CONFLICT (tenant_id, user_id) DO UPDATE SET name = excluded.name || users.user_id, score = users.score + 1 RETURNING tenant_id, user_id, name, score;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'm'), (4, 1, 'new@x', 'm'), (5, 700, 'new@x', 'm') ON CONFLICT (tenant_id, user_id) DO UPDATE SET name = excluded.name RETURNING tenant_id, user_id, email;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'w') ON CONFLICT (tenant_id, user_id) DO UPDATE SET name = excluded.name WHERE users.name <> 'm' RETURNING name;
INSERT INTO users AS u (tenant_id, user_id, email, name) VALUES (3, 1, 'new@x', 'w') ON CONFLICT (tenant_id, user_id) DO UPDATE SET age = coalesce(u.age, 0) + 1, name = DEFAULT WHERE u.active RETURNING u.age, u.name;
INSERT INTO users (tenant_id, user_id, email, name) VALUES (3, 1, 'z', 'w') ON CONFLICT (tenant_id, user_id) DO NOTHING;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 800, 'user1@t3.example') ON CONFLICT (tenant_id, email) DO UPDATE SET age = 99 RETURNING user_id, age;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 800, 'user1@t3.example') ON CONFLICT (tenant_id, user_id) DO UPDATE SET age = 98;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 800, 'user1@t3.example') ON CONFLICT ON CONSTRAINT users_tenant_id_email_key DO UPDATE SET age = 97 RETURNING user_id, age;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 1, 'q@q'), (3, 1, 'r@r') ON CONFLICT (tenant_id, user_id) DO UPDATE SET email = excluded.email;
INSERT INTO users (tenant_id, user_id, email) VALUES (3, 1, 'q@q') ON CONFLICT (age) DO NOTHING;
INSERT INTO tenants SELECT tenant_id, name || '+', plan, country, created FROM tenants WHERE tenant_id < 4 ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name RETURNING name;
INSERT INTO countries VALUES ('DE', 'Deutschland', 'EUR'), ('IT', 'Italy', 'EUR') ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING code, name;
INSERT INTO countries VALUES ('DE', 'x', 'EUR'), ('ES', 'Spain', 'EUR') ON CONFLICT DO NOTHING RETURNING code;
INSERT INTO events (event_id, tenant_id, kind, at) VALUES (1, 2, 'dup', '2024-01-01'), (9001, 2, 'dup', '2024-01-01') ON CONFLICT (event_id) DO UPDATE SET kind = excluded.kind, user_id = events.user_id + 1 RETURNING event_id, tenant_id, kind, user_id;
SELECT * FROM users WHERE tenant_id = 3 AND user_id = 1;
SELECT * FROM countries ORDER BY 1;
