"""The pods of deploy/base, as podman can start them, at work."""

from contextlib import ExitStack

from support.container_pod import ContainerPod
from support.deployed import BASE, POD
from support.pod import APP_ROLE, CHECK_PASSWORD, CHECK_ROLE
from support.postgres import PostgresServer

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
NEW_PASSWORD = "the next % password"


def test_every_probe_of_the_manifest_succeeds_those_of_pgpools_life_without_a_sidecar(deployed: ContainerPod) -> None:
    assert deployed.login()
    everything = (*POD["initContainers"], *POD["containers"])
    probes = [each[kind] for each in everything for kind in PROBES if kind in each]
    pages = [each["httpGet"]["path"] for each in probes if "httpGet" in each]
    commands = [each["exec"]["command"] for each in probes if "exec" in each]
    assert (len(pages), len(commands)) == (3, 2)
    for page in pages:
        assert deployed.get(page)
    deployed.sidecar.stop()
    for command in commands:
        deployed.pgpool.output(*command)


def test_prometheus_gets_the_numbers_of_its_pgpool(deployed: ContainerPod, postgres: PostgresServer) -> None:
    node = f'hostname="127.0.0.1",node_id="0",port="{postgres.port}"'
    assert deployed.metric("pgpool2_up") == 1
    assert deployed.metric(f"pgpool2_pool_nodes_status{{{node}}}") == 1


def test_it_runs_with_the_context_of_the_manifest(deployed: ContainerPod) -> None:
    for container in (deployed.pgpool, deployed.sidecar):
        assert container.output("id", "-u") == "10001\n"
        assert container.run("sh", "-c", "echo >/etc/written").returncode != 0
    assert deployed.pgpool.output("cat", "/proc/sys/kernel/shm_rmid_forced") == "1\n"


def test_a_swapped_secret_reaches_it(deployed: ContainerPod, postgres: PostgresServer) -> None:
    postgres.create_role("n8n", "the first % password")
    try:
        passwords = {CHECK_ROLE: CHECK_PASSWORD.encode(), APP_ROLE: b"whatever it was"}
        for password in ("the first % password", NEW_PASSWORD):
            postgres.alter_password("n8n", password)
            deployed.users.write({**passwords, "n8n": password.encode()})
            deployed.wait_until_login("n8n", password)
    finally:
        postgres.drop_role("n8n")


def test_the_command_of_its_pre_stop_hook_is_in_the_image(deployed: ContainerPod) -> None:
    (pgpool,) = POD["containers"]
    program, seconds = pgpool["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) > 0
    assert deployed.pgpool.run(program, "0").returncode == 0


def test_its_limit_of_memory_is_enough_when_every_child_has_had_a_row_of_4_mb(deployed: ContainerPod) -> None:
    children = int(BASE["ConfigMap"]["data"]["PGPOOL_PARAMS_NUM_INIT_CHILDREN"])
    (pgpool,) = POD["containers"]
    limit = int(pgpool["resources"]["limits"]["memory"].removesuffix("Mi"))
    with ExitStack() as clients:
        for _ in range(children):
            client = clients.enter_context(deployed.connect())
            for _ in range(2):
                assert client.execute("SELECT length(row), row FROM repeat('x', 4000000) AS row").fetchone() is not None
        mebibytes = deployed.pgpool.resident_bytes() / 2**20
    print(f"memory of pgpool after {children} rows of 4 MB at a time: {mebibytes:.0f} MiB")
    assert 200 < mebibytes < 0.8 * limit
