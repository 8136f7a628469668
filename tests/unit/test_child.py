"""What the programs that we start get of the environment."""

from entrypoint.child import minimal_environment


def test_a_child_gets_only_what_makes_it_run() -> None:
    kept = {"PATH": "/bin", "LANG": "C.UTF-8", "LC_ALL": "C", "LC_MESSAGES": "C", "LD_LIBRARY_PATH": "/opt/lib"}
    others = {
        "PGPOOL_PCP_PASSWORD": "pcp pass 100%",
        "PGPASSWORD": "somebody's pass 100%",
        "AWS_SECRET_ACCESS_KEY": "a key 100%",
        "HOME": "/",
        "LANGUAGE": "de",
        "PATHS": "/",
        "LD": "ld",
        "MY_LC_ALL": "C",
    }
    assert minimal_environment({**kept, **others}) == kept
    assert minimal_environment({}) == {}
