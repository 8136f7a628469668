"""What a pod needs of the image: real containers, with nothing that a restricted pod would not have."""

import time
from dataclasses import replace

from entrypoint.errors import ExitCode
from support.container_pod import RUN, ContainerPod, NewContainerPod
from support.containers import Description, Mount, SecurityContext, run_to_end
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE
from support.postgres import PostgresServer

NEW_PASSWORD = "the new % password"


def secrets(pod: ContainerPod) -> list[Mount]:
    """The pod's volumes without that for the run directory."""
    return [mount for mount in pod.pgpool_description.mounts if mount.target != RUN]


def test_a_client_logs_in_through_pgpool_and_the_sidecar_counts_it(pod: ContainerPod, postgres: PostgresServer) -> None:
    assert pod.login()
    assert not pod.login(password="a wrong one")
    pod.wait_in_sync()
    assert pod.metric("pgpool2_up") == 1
    node = f'hostname="127.0.0.1",node_id="0",port="{postgres.port}"'
    assert pod.metric(f"pgpool2_pool_nodes_status{{{node}}}") == 1


def test_psql_in_the_image_reaches_postgresql_through_pgpool(pod: ContainerPod, image: str) -> None:
    url = f"host=127.0.0.1 port={pod.port} user={APP_ROLE} dbname=postgres"
    answer = run_to_end(
        Description(image=image, args=("psql", url, "-Atc", "SELECT 6 * 7"), env={"PGPASSWORD": APP_PASSWORD})
    )
    assert (answer.returncode, answer.stdout) == (0, "42\n"), answer.stderr


def test_a_swapped_secret_is_served_without_a_restart(pod: ContainerPod, postgres: PostgresServer) -> None:
    pid = pod.pgpool.state["Pid"]
    postgres.alter_password(APP_ROLE, NEW_PASSWORD)
    try:
        pod.users.write({CHECK_ROLE: CHECK_PASSWORD.encode(), APP_ROLE: NEW_PASSWORD.encode()})
        pod.wait_until_login(password=NEW_PASSWORD)
    finally:
        postgres.alter_password(APP_ROLE, APP_PASSWORD)
    assert pod.pgpool.state["Pid"] == pid


def test_a_killed_pgpool_comes_back_ten_times_and_no_shared_memory_piles_up(either_pod: ContainerPod) -> None:
    pod = either_pod
    segments = pod.sidecar.shared_memory()
    assert segments > 0
    for _ in range(10):
        pod.kill_pgpool()
        assert pod.pgpool.wait_until_exit() == 137
        pod.pgpool.start()
        pod.wait_until_login()
    assert pod.sidecar.shared_memory() == segments


def test_both_containers_end_in_time_and_cleanly_while_a_client_stays(pod: ContainerPod) -> None:
    with pod.connect():
        assert pod.pgpool.stop() < 5
    assert pod.pgpool.state["ExitCode"] == ExitCode.OK
    assert pod.sidecar.stop() < 3
    assert pod.sidecar.state["ExitCode"] == ExitCode.OK


def test_sigterm_ends_both_as_well_when_no_client_is_there(either_pod: ContainerPod) -> None:
    begin = time.monotonic()
    for container in (either_pod.pgpool, either_pod.sidecar):
        container.signal("TERM")
        assert container.wait_until_exit() == ExitCode.OK
    assert time.monotonic() - begin < 8


def test_any_user_id_in_group_0_can_run_it(stopped_pod: ContainerPod) -> None:
    pod = stopped_pod
    pod.pgpool_description, pod.sidecar_description = (
        replace(description, security=replace(description.security, run_as_user=54321, run_as_group=0))
        for description in (pod.pgpool_description, pod.sidecar_description)
    )
    pod.start()
    assert pod.pgpool.output("id", "-u") == "54321\n"


def test_the_images_own_run_directory_serves_any_user_id_in_group_0(new_pod: NewContainerPod) -> None:
    pod = new_pod()
    security = SecurityContext(run_as_user=54321, run_as_group=0, read_only_root_filesystem=False)
    pod.pgpool_description = replace(pod.pgpool_description, security=security, mounts=secrets(pod))
    pod.start()
    assert pod.pgpool.run("pgpool-entrypoint", "probe", "live").returncode == 0


def test_a_directory_in_memory_of_its_own_is_enough_without_a_sidecar(new_pod: NewContainerPod) -> None:
    pod = new_pod()
    pod.pgpool_description = replace(pod.pgpool_description, mounts=secrets(pod), tmpfs=[f"{RUN}:mode=1777"])
    pod.start()
    assert pod.pgpool.run("pgpool-entrypoint", "probe", "ready").returncode == 0
    assert "not in memory" not in pod.pgpool.log


def test_a_run_directory_that_cannot_be_written_is_named_with_a_remedy(stopped_pod: ContainerPod) -> None:
    stopped_pod.run_dir.chmod(0o755)
    answer = run_to_end(stopped_pod.pgpool_description)
    assert answer.returncode == ExitCode.CANNOT_PUBLISH
    assert f"PGPOOL_RUN_DIR {RUN} is not writable for user id 10001" in answer.stderr
    assert "emptyDir" in answer.stderr


def test_a_read_only_image_without_a_volume_is_named_with_a_remedy(new_pod: NewContainerPod) -> None:
    pod = new_pod()
    answer = run_to_end(replace(pod.pgpool_description, mounts=secrets(pod)))
    assert answer.returncode == ExitCode.CANNOT_PUBLISH
    assert "emptyDir" in answer.stderr


def test_no_process_has_a_capability_or_can_get_one(pod: ContainerPod) -> None:
    for container in (pod.pgpool, pod.sidecar):
        status = container.output("cat", "/proc/1/status")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{kind}:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_the_probes_answer(pod: ContainerPod) -> None:
    pod.wait_in_sync()
    for page in ("/livez", "/readyz", "/pgpool/livez", "/pgpool/readyz"):
        assert pod.get(page)
    for kind in ("live", "ready"):
        answer = pod.pgpool.run("pgpool-entrypoint", "probe", kind)
        assert answer.returncode == 0, answer.stderr


def test_both_together_rest_in_220_mib_with_32_children(new_pod: NewContainerPod) -> None:
    pod = new_pod()
    pod.set_pgpool(PGPOOL_PARAMS_NUM_INIT_CHILDREN="32")
    pod.start()
    pod.wait_in_sync()
    megabytes = [round(container.resident_bytes() / 2**20, 1) for container in (pod.pgpool, pod.sidecar)]
    print(f"memory at rest, MiB: pgpool with 32 children {megabytes[0]}, sidecar {megabytes[1]}")
    assert 10 < sum(megabytes) <= 220


def test_a_container_accepts_connections_soon_after_its_start(pod: ContainerPod) -> None:
    pod.pgpool.stop()
    begin = time.monotonic()
    pod.pgpool.start()
    pod.wait_until_login()
    seconds = time.monotonic() - begin
    print(f"from the container's start to a first login: {seconds:.2f} s")
    assert seconds < 5  # 1.5 on a machine that does nothing else
