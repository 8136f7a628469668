"""deploy/patroni/roles.sql, on a real server."""

from pathlib import Path

from support.postgres import NewServer

ROLES = Path(__file__).parents[2] / "deploy/patroni/roles.sql"
FACTS = """
    SELECT rolcanlogin, rolsuper, rolcreaterole, pg_has_role(oid, 'pg_monitor', 'USAGE')
    FROM pg_roles WHERE rolname = 'sr_check'
"""


def test_the_check_role_is_made_may_see_replication_and_nothing_more(new_server: NewServer) -> None:
    server = new_server()
    server.sql(ROLES.read_text())
    assert server.sql(FACTS) == [(True, False, False, True)]


def test_running_it_again_takes_back_what_the_role_has_too_much(new_server: NewServer) -> None:
    server = new_server()
    server.sql("CREATE ROLE sr_check SUPERUSER PASSWORD 'kept'")
    server.sql(ROLES.read_text())
    server.sql(ROLES.read_text())
    assert server.sql(FACTS) == [(True, False, False, True)]
    with server.connect("sr_check", "kept") as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (0,)
