"""chrony's files: which clock a node follows is decided before each start, by what the kernel offers then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from golden.test_seeds import SECRETS, plan_of

from lab.render.cloudinit import render_seed
from lab.render.node_update import render_update
from lab.render.timekeeping import CHRONY_FILE, DROP_IN, HOST_CLOCK_SCRIPT, RUN_FOLDER, STALE_FILE, render_chrony


def names(root: Path, **clocks: str) -> dict[str, str]:
    """What the script leaves for chronyd where the kernel lists these clocks (recorded: the name of KVM's)."""
    sysfs = root / "sys"
    for device, name in clocks.items():
        (sysfs / device).mkdir(parents=True, exist_ok=True)
        (sysfs / device / "clock_name").write_text(f"{name}\n")
    plan = plan_of("1m1w")
    [script] = [f.content for f in render_chrony(plan, plan.nodes[0]) if f.path == HOST_CLOCK_SCRIPT]
    script = script.replace("/sys/class/ptp", str(sysfs)).replace(RUN_FOLDER, str(root / "run"))
    subprocess.run(["/bin/sh", "-eu", "-c", script], check=True, timeout=30)
    return {path.name: path.read_text() for path in (root / "run").iterdir()}


def test_the_host_clock_is_the_one_that_kvm_offers(tmp_path: Path) -> None:
    found = names(tmp_path, ptp0="e1000e", ptp1="KVM virtual PTP")
    assert found == {"host.conf": "refclock PHC /dev/ptp1 poll 2 dpoll -2 offset 0 stratum 2 prefer trust\n"}


@pytest.mark.parametrize("clocks", [{}, {"ptp0": "hyperv"}])
def test_a_clock_that_is_not_there_is_not_named_and_not_kept(tmp_path: Path, clocks: dict[str, str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/host.conf").write_text("refclock PHC /dev/ptp0\n")
    assert names(tmp_path, **clocks) == {}


def test_no_file_on_a_disk_names_a_clock_that_may_be_gone() -> None:
    plan = plan_of("ha-3m2w")
    for node in plan.nodes:
        files = {file.path: file.content for file in render_chrony(plan, node)}
        assert list(files) == [CHRONY_FILE, HOST_CLOCK_SCRIPT, DROP_IN]
        assert "refclock" not in files[CHRONY_FILE]
        assert f"confdir {RUN_FOLDER}\n" in files[CHRONY_FILE]
        assert "makestep 0.5 -1\n" in files[CHRONY_FILE], "a host that slept must be followed, however long it has run"
        assert f"/bin/sh {HOST_CLOCK_SCRIPT}\n" in files[DROP_IN]
        assert "After=modprobe@ptp_kvm.service\n" in files[DROP_IN]


@pytest.mark.parametrize("name", ["1m1w", "bare-1m2w"])
def test_seed_and_update_bring_the_same_files(name: str) -> None:
    plan = plan_of(name)
    for node in plan.nodes:
        seed, update = render_seed(plan, node, SECRETS)["user-data"], render_update(plan, node)
        for file in render_chrony(plan, node):
            assert f"path: {file.path}\n" in seed
            assert f"put {file.path} <<'KLAB_END_OF_FILE'\n{file.content}" in update


def test_an_update_repairs_a_node_whose_chronyd_cannot_start(tmp_path: Path) -> None:
    """A node of an older klab: the clock is named for good. Systemd is a stand-in that notes what it is told."""
    plan = plan_of("1m1w")
    (tmp_path / STALE_FILE[1:]).parent.mkdir(parents=True)
    (tmp_path / STALE_FILE[1:]).write_text("refclock PHC /dev/ptp0\n")
    script = render_update(plan, plan.nodes[1]).replace("/etc/", f"{tmp_path}/etc/")
    stand_in = 'systemctl() { echo "$*"; }\n'
    first, second = (
        subprocess.run(["bash", "-c", stand_in + script], check=True, timeout=30, capture_output=True, text=True).stdout
        for _ in range(2)
    )
    assert first.splitlines()[:2] == ["daemon-reload", "restart chrony"]
    assert "chrony" not in second, "what is right already is left in peace"
    assert not (tmp_path / STALE_FILE[1:]).exists()
    assert (tmp_path / DROP_IN[1:]).is_file()
