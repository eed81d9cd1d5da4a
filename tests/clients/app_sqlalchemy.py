"""A small application of many tenants in SQLAlchemy 2. Prints what each step sees; run.py compares a plain database with a
distributed one: app_sqlalchemy.py HOST PORT USER DATABASE plain|distributed"""

import datetime as dt
import sys
from decimal import Decimal

from sqlalchemy import (BigInteger, CheckConstraint, Column, Computed, ForeignKey, ForeignKeyConstraint, Identity,
                        Numeric, String, Table, Text, UniqueConstraint, case, create_engine, delete, func, insert, inspect,
                        literal, select, text, tuple_, union, update)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, insert as upsert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import (DeclarativeBase, Mapped, Session, contains_eager, joinedload, mapped_column, relationship,
                            selectinload, subqueryload)
from sqlalchemy.orm.exc import StaleDataError


class Base(DeclarativeBase):
    pass


class Country(Base):
    __tablename__ = "country"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Tenant(Base):
    __tablename__ = "tenant"
    tenant_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str]
    country_code: Mapped[str | None] = mapped_column(ForeignKey("country.code"))
    settings: Mapped[dict] = mapped_column(JSONB, server_default="{}")
    country = relationship("Country")
    users = relationship("User", order_by="User.user_id")
    orders = relationship("Order", order_by="Order.order_id")


class User(Base):
    __tablename__ = "user"
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenant.tenant_id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    email: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    version: Mapped[int] = mapped_column(default=1)
    __table_args__ = (UniqueConstraint("tenant_id", "email", name="user_email"),)
    __mapper_args__ = {"version_id_col": version}


order_tag = Table("order_tag", Base.metadata, *(Column(c, BigInteger, primary_key=True) for c in ("tenant_id", "order_id", "tag_id")),
                  ForeignKeyConstraint(["tenant_id", "order_id"], ["order.tenant_id", "order.order_id"], ondelete="CASCADE"),
                  ForeignKeyConstraint(["tenant_id", "tag_id"], ["tag.tenant_id", "tag.tag_id"]))


class Tag(Base):
    __tablename__ = "tag"
    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tag_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str]


class Order(Base):
    __tablename__ = "order"
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenant.tenant_id", ondelete="CASCADE"), primary_key=True)
    order_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    placed: Mapped[dt.date]
    note: Mapped[str | None] = mapped_column(Text)
    lines = relationship("Line", cascade="all, delete-orphan", order_by="Line.line_no")
    tags = relationship("Tag", secondary=order_tag, order_by=Tag.name)
    __table_args__ = (CheckConstraint("note <> 'bad'", name="order_note"),
                      ForeignKeyConstraint(["tenant_id", "user_id"], ["user.tenant_id", "user.user_id"], deferrable=True,
                                           initially="DEFERRED"))


class Line(Base):
    __tablename__ = "line"
    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    qty: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2), Computed("qty * price", persisted=True))
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "order_id"], ["order.tenant_id", "order.order_id"], ondelete="CASCADE"),)


class Job(Base):
    __tablename__ = "job"
    job_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    payload: Mapped[dict] = mapped_column(JSONB)
    done: Mapped[bool] = mapped_column(default=False)


def fill(s):
    s.add_all([Country(code=c, name=n) for c, n in (("de", "Germany"), ("fr", "France"), ("us", "USA"))])
    for t in range(8):
        tenant = Tenant(name=f"tenant {t}", country_code=[None, "de", "fr", "us"][t % 4], settings={"plan": ["free", "pro"][t % 2], "n": t})
        tenant.users = [User(email=f"u{i}@{t}", tags=["a", "b", "c"][:i % 4]) for i in range(5)]
        s.add(tenant)
        s.flush()
        tags = [Tag(tenant_id=tenant.tenant_id, name=f"tag {i}") for i in range(3)]
        s.add_all(tags)
        for o in range(6):
            tenant.orders.append(Order(
                user_id=tenant.users[o % 5].user_id, placed=dt.date(2024, 1 + o, 1 + t), note=None if o % 2 else f"the quick fox {t}", tags=tags[o % 3:],
                lines=[Line(line_no=i, sku=f"sku {(t + o + i) % 5}", qty=1 + i, price=Decimal(100 * t + o) / 4) for i in range(1 + o % 3)]))
    s.add_all([Job(payload={"n": i}) for i in range(40)])


def distribute(s):
    s.execute(text("SELECT create_reference_table('country')"))
    for table in Base.metadata.sorted_tables:
        if table.name != "country":
            key = "job_id" if table.name == "job" else "tenant_id"
            s.execute(text("SELECT create_distributed_table(CAST(:t AS text), :k, shard_count => 4)"), {"t": f'"{table.name}"', "k": key})


def reading(s):
    for load in (selectinload, joinedload, subqueryload):
        s.expunge_all()
        q = select(Tenant).options(load(Tenant.users), load(Tenant.country), load(Tenant.orders).options(load(Order.lines), load(Order.tags)))
        yield [(t.name, t.country and t.country.name, [u.email for u in t.users],
                [(o.order_id, [n.total for n in o.lines], [g.name for g in o.tags]) for o in t.orders])
               for t in s.scalars(q.order_by(Tenant.tenant_id)).unique()]
    yield [(t.name, len(t.orders)) for t in s.scalars(select(Tenant).join(Tenant.orders).where(Order.note.isnot(None)).options(
        contains_eager(Tenant.orders)).order_by(Tenant.tenant_id, Order.order_id)).unique()]
    last = select(Order.placed).where(Order.tenant_id == Tenant.tenant_id).order_by(Order.placed.desc()).limit(1).scalar_subquery()
    amounts = select(Order.tenant_id, func.sum(Line.total).label("sum")).join(Order.lines).group_by(Order.tenant_id).cte("amounts")
    for q in (
        select(Tenant.name, last, case((Tenant.settings["n"].as_integer() > 4, "big"), else_="small")).order_by(Tenant.name),
        select(Tenant.name, amounts.c.sum).join(amounts, amounts.c.tenant_id == Tenant.tenant_id).where(
            amounts.c.sum > select(func.avg(amounts.c.sum)).scalar_subquery()).order_by(Tenant.name),
        select(Country.name, func.count(Tenant.tenant_id).filter(Tenant.settings["plan"].astext == "pro"),
               func.array_agg(aggregate_order_by(Tenant.name, Tenant.name.desc()))).join(Tenant, isouter=True).group_by(Country.name).order_by(Country.name),
        select(Line.sku, func.count(Line.order_id.distinct()), func.avg(Line.price)).group_by(func.rollup(Line.sku)).order_by(Line.sku),
        select(Order.order_id, func.rank().over(partition_by=Order.tenant_id, order_by=Order.placed.desc()),
               func.lag(Order.note).over(order_by=Order.order_id)).order_by(Order.order_id),
        select(Tenant.name).where(Tenant.users.any(User.tags.contains(["c"])), ~Tenant.orders.any(Order.note == "x")).order_by(Tenant.name),
        select(User.email).where(tuple_(User.tenant_id, User.user_id).in_([(1, 1), (2, 7), (3, 1)])).order_by(User.email),
        select(Order.order_id).where(func.to_tsvector("english", Order.note).op("@@")(func.to_tsquery("english", "foxes"))).order_by(Order.order_id),
        union(select(Tenant.name), select(Country.name)).order_by("name"),
    ):
        yield s.execute(q).all()
    yield [tuple(r) for r in s.execute(select(Line.tenant_id, Line.order_id, Line.line_no).order_by(*Line.__table__.primary_key.columns),
                                       execution_options={"yield_per": 7})]


def writing(s):
    late = Tenant(name="late", country_code="us", users=[User(email=f"late {i}") for i in range(30)])  # insertmanyvalues
    s.add(late)
    s.flush()
    yield [u.user_id for u in late.users]
    ids = s.execute(insert(Job).returning(Job.job_id, Job.payload, sort_by_parameter_order=True), [{"payload": {"k": i}} for i in range(1200)]).all()
    yield ids[0].job_id, ids[-1].job_id, [r.payload["k"] for r in ids] == list(range(1200))
    st = upsert(User).values([{"tenant_id": 1, "email": f"u{i}@0"} for i in range(3, 8)])
    st = st.on_conflict_do_update(constraint="user_email", set_={"version": User.version + 1}).returning(User.email, User.version)
    yield sorted(s.execute(st).all())
    yield s.execute(upsert(Country).values(code="de", name="x").on_conflict_do_nothing().returning(Country.code)).all()
    s.execute(update(Line), [{"tenant_id": n.tenant_id, "order_id": n.order_id, "line_no": 0, "qty": 9}
                             for n in s.scalars(select(Line).where(Line.line_no == 0, Line.tenant_id < 4))])
    yield s.execute(update(Order).where(Order.tenant_id == Tenant.tenant_id, Tenant.country_code == "de").values(note=Tenant.name)).rowcount
    yield sorted(s.execute(update(Tenant).values(name=Tenant.name + " of " + select(func.count()).where(
        Order.tenant_id == Tenant.tenant_id).scalar_subquery().cast(Text)).returning(Tenant.name)).scalars())
    yield s.execute(delete(Line).where(Line.sku.in_(select(Line.sku).where(Line.price > 150)), Line.qty == 3)).rowcount
    yield s.execute(insert(Tag).from_select(["tenant_id", "name"], select(Tenant.tenant_id, Tenant.name).order_by(Tenant.tenant_id))).rowcount
    some = select(Job.job_id).where(~Job.done).order_by(Job.job_id).limit(7).with_for_update(skip_locked=True).scalar_subquery()
    yield sorted(s.execute(update(Job).where(Job.job_id.in_(some)).values(done=True).returning(Job.job_id)).scalars())
    order = s.get(Order, (1, 1))
    order.tags.remove(order.tags[0])
    order.tags.append(Tag(tenant_id=1, name="fresh"))
    s.commit()
    yield [t.name for t in order.tags]
    s.delete(s.get(Order, (2, 8)))
    s.execute(delete(Tenant).where(Tenant.tenant_id == 5))
    s.commit()
    for table in Base.metadata.sorted_tables:
        yield sorted(map(repr, s.execute(select(table))))


def errors(s):
    def attempt(statement):
        try:
            with s.begin_nested():
                s.execute(statement)
                return "done"
        except DBAPIError as e:
            d = e.orig.diag
            return type(e).__name__, d.sqlstate, d.constraint_name, d.table_name, d.column_name, d.message_primary

    for statement in (insert(User).values(tenant_id=1, email="u2@0"), insert(User).values(tenant_id=999, email="x"),
                      update(Order).values(note="bad"), insert(User).values(tenant_id=None, email="x"), insert(Country).values(code="de", name="q"),
                      delete(Country), select(literal(1) / (Tenant.tenant_id - 1)),
                      insert(Line).values(tenant_id=1, order_id=1, line_no=77, sku="x", qty=1, price=10 ** 9), update(Line).values(total=5)):
        yield attempt(statement)
    user = s.get(User, (1, 1))
    with Session(s.get_bind()) as other:
        other.execute(update(User).where(User.user_id == 1).values(version=99))
        other.commit()
    user.email = "changed"
    try:
        s.commit()
    except StaleDataError as e:
        yield type(e).__name__
        s.rollback()
    try:
        with s.begin_nested():
            s.execute(delete(Line))
            s.add(User(tenant_id=1, email="u2@0"))
            s.flush()
    except IntegrityError:
        yield s.scalar(select(func.count()).select_from(Line))


def structure(s):
    i = inspect(s.get_bind())
    for table in sorted(t.name for t in Base.metadata.sorted_tables):
        yield table, [{k: str(v) for k, v in c.items()} for c in i.get_columns(table)], i.get_pk_constraint(table), sorted(
            i.get_foreign_keys(table), key=lambda k: k["name"]), i.get_indexes(table), i.get_unique_constraints(table), i.get_check_constraints(table)


def main(host, port, user, database, kind):
    engine = create_engine(f"postgresql+psycopg://{user}@/{database}?host={host}&port={port}")
    Base.metadata.create_all(engine)
    with Session(engine) as s:
        fill(s)
        s.commit()
        if kind == "distributed":
            distribute(s)
        s.commit()
    for step in (reading, writing, errors, reading, structure):
        with Session(engine) as s:
            for number, seen in enumerate(step(s)):
                print(step.__name__, number, seen)
            s.commit()


main(*sys.argv[1:])
