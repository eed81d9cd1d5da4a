"""A small application in Django. Prints what each step sees; run.py compares a plain database with a distributed one:
app_django.py HOST PORT USER DATABASE plain|distributed"""

import datetime as dt
import sys
from decimal import Decimal

import django
from django.conf import settings

host, port, user, database, kind = sys.argv[1:]
settings.configure(USE_TZ=True, SECRET_KEY="none", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
                   INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.postgres"],
                   DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, "USER": user, "NAME": database}})
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.postgres.aggregates import ArrayAgg  # noqa: E402
from django.contrib.postgres.fields import ArrayField, IntegerRangeField  # noqa: E402
from django.contrib.postgres.search import SearchQuery, SearchVector  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, connection, models, transaction  # noqa: E402
from django.db.models import (Avg, Case, Count, Exists, F, OuterRef, Q, Subquery, Sum, Value, When, Window)  # noqa: E402
from django.db.models.functions import Coalesce, Concat, Rank, TruncMonth  # noqa: E402


class Tenant(models.Model):
    name = models.CharField(max_length=60)
    conf = models.JSONField(default=dict)

    class Meta:
        app_label = "auth"
        db_table = "tenant"


class Project(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, db_constraint=False, related_name="projects")
    owner = models.ForeignKey(User, models.CASCADE, db_constraint=False, null=True, related_name="owned")
    title = models.CharField(max_length=100)
    budget = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    labels = ArrayField(models.CharField(max_length=10), default=list)
    slots = IntegerRangeField(null=True)

    class Meta:
        app_label = "auth"
        db_table = "project"


class Order(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "order_id")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="orders")
    order_id = models.BigIntegerField()
    project = models.ForeignKey(Project, models.CASCADE, db_constraint=False, related_name="orders")
    status = models.CharField(max_length=10)
    placed = models.DateTimeField()

    class Meta:
        app_label = "auth"
        db_table = "order"
        constraints = [models.CheckConstraint(condition=~Q(status="bad"), name="order_status")]


def fill():
    people = [User.objects.create(username=f"user {i}") for i in range(3)]
    for t in range(6):
        tenant = Tenant.objects.create(name=f"tenant {t}", conf={"plan": ["free", "pro"][t % 2], "n": t})
        for p in range(4):
            project = Project.objects.create(tenant=tenant, owner=people[p] if p < 3 else None, title=f"red fox {p} of {t}",
                                             budget=Decimal(p * 10 + t) if p else None, labels=["a", "b", "c"][:p], slots=(p, p + 3))
            Order.objects.bulk_create([Order(tenant=tenant, order_id=p * 10 + o, project=project, status=["new", "paid"][(o + p) % 2],
                                             placed=dt.datetime(2024, 1 + p, 1 + o, tzinfo=dt.timezone.utc)) for o in range(3)])


def distribute():
    with connection.cursor() as c:
        for table in ("django_content_type", "auth_permission", "auth_group", "auth_user", "auth_group_permissions", "auth_user_groups",
                      "auth_user_user_permissions"):
            c.execute("SELECT create_reference_table(%s::text)", [table])
        for table, key in (("tenant", "id"), ("project", "id"), ("order", "tenant_id"), ("django_session", "session_key")):
            c.execute("SELECT create_distributed_table(%s::text, %s, shard_count => 4)", [f'"{table}"', key])


def reading():
    yield [(p.title, p.tenant.name, p.owner and p.owner.username) for p in Project.objects.select_related("tenant", "owner").order_by("id")]
    yield [(t.name, sorted(p.title for p in t.projects.all()), sorted(o.order_id for o in t.orders.all()))
           for t in Tenant.objects.prefetch_related("projects", "orders").order_by("id")]
    of_tenant = Project.objects.filter(tenant=OuterRef("pk"))
    for query in (
        Tenant.objects.annotate(n=Count("projects", distinct=True), m=Count("orders__order_id", distinct=True), b=Avg("projects__budget")).order_by("id").values_list("name", "n", "m", "b"),
        Tenant.objects.annotate(best=Subquery(of_tenant.order_by(F("budget").desc(nulls_last=True), "id").values("title")[:1]),
                                rich=Exists(of_tenant.filter(budget__gt=33))).order_by("id").values_list("best", "rich"),
        Tenant.objects.exclude(projects__budget__gt=33).order_by("id").values_list("name"),
        Order.objects.annotate(month=TruncMonth("placed")).values("month", "status").annotate(c=Count("order_id")).order_by("month", "status"),
        Project.objects.annotate(r=Window(Rank(), partition_by="tenant", order_by=F("budget").desc(nulls_last=True))).order_by("id").values_list("id", "r"),
        Project.objects.annotate(c=Case(When(budget__gt=20, then=Value("big")), default=Concat(Value("no "), "title"))).order_by("id").values_list("c"),
        Project.objects.filter(labels__contains=["b"], slots__contains=4).order_by("id").values_list("title", "slots"),
        Project.objects.annotate(s=SearchVector("title", config="english")).filter(s=SearchQuery("foxes", config="english")).order_by("id").values_list("id"),
        Tenant.objects.filter(conf__plan="pro", conf__n__gt=1).order_by("id").values_list("conf__n"),
        Project.objects.values("tenant__name").annotate(t=ArrayAgg("title", ordering="title"), b=Sum("budget")).order_by("tenant__name"),
        User.objects.filter(owned__orders__status="new").distinct().order_by("id").values_list("username"),
        Tenant.objects.values_list("name").union(User.objects.values_list("username")).order_by("name"),
    ):
        yield list(query)
    yield [p.pk for p in Project.objects.order_by("-pk").iterator(chunk_size=5)]


def writing():
    yield Tenant.objects.get_or_create(name="tenant 2")[1], Tenant.objects.get_or_create(name="new")[1]
    yield Order.objects.update_or_create(tenant_id=1, order_id=1, defaults={"status": "upd"}, create_defaults={})[1]
    rows = [Order(tenant_id=t, order_id=o, project_id=1, status="bulk", placed=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)) for t in (1, 2) for o in (2, 900)]
    Order.objects.bulk_create(rows, update_conflicts=True, unique_fields=["tenant_id", "order_id"], update_fields=["status"])
    yield Project.objects.filter(tenant__name="tenant 1").update(title="of one"), Project.objects.update(budget=Coalesce("budget", 0) + F("tenant_id"))
    yield Project.objects.filter(id__gt=12).update(budget=Subquery(Order.objects.filter(project=OuterRef("pk")).values("project").annotate(c=Count("*")).values("c")))
    some = list(Project.objects.order_by("id")[:9])
    for number, project in enumerate(some):
        project.labels = [str(number)]
    yield Project.objects.bulk_update(some, ["labels"], batch_size=4)
    with transaction.atomic():
        yield list(Project.objects.select_related("tenant").select_for_update(of=("self",), skip_locked=True).order_by("pk")[:3].values_list("pk"))
        for order in (0, 7000, 7001):
            try:
                with transaction.atomic():
                    Order.objects.bulk_create([Order(tenant_id=1, order_id=order, project_id=1, status="s", placed=rows[0].placed)])
                    if order == 7001:
                        raise KeyError
            except (DatabaseError, KeyError) as e:
                yield type(e).__name__
    for attempt in (lambda: Order.objects.update(status="bad"), lambda: Tenant.objects.create(name="x" * 61), lambda: User.objects.create(username="user 1")):
        try:
            with transaction.atomic():
                attempt()
        except DatabaseError as e:
            yield type(e).__name__, e.__cause__.diag.constraint_name, e.__cause__.diag.message_primary
    group = Group.objects.create(name="g")
    group.permissions.set(Permission.objects.order_by("id")[:3])
    User.objects.get(username="user 1").groups.add(group)
    yield sorted(User.objects.get(username="user 1").get_all_permissions())
    session = SessionStore()
    session["a"] = 1
    session.save()
    yield SessionStore(session.session_key)["a"]
    yield Tenant.objects.get(name="tenant 4").delete(), Order.objects.filter(project__owner__username="user 2").delete()
    for model in (Tenant, Project, Order, User):
        yield sorted(map(repr, model.objects.values_list(*(f.attname for f in model._meta.concrete_fields if f.attname != "date_joined"))))


call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    for model in (Tenant, Project, Order):
        editor.create_model(model)
fill()
if kind == "distributed":
    distribute()
for step in (reading, writing, reading):
    for number, seen in enumerate(step()):
        print(step.__name__, number, seen)
