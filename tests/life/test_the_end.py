"""Certificates run out, and klab renews them: last of all, since the clocks do not go back afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.trouble import await_findings, await_health, repair

if TYPE_CHECKING:
    from support.real_lab import Lab


def test_certificates_that_expired_are_renewed(lab: Lab) -> None:
    # On all of them before the first clock jumps: workers ask cp1 every few seconds, and would jump with it.
    for node in lab.nodes:
        lab.on(node, "systemctl stop chrony")
    # cp1 first: whoever starts chrony then follows it. No clock goes back afterwards, since what the cluster
    # has dated by then would lie in the future: this lab has only its end before it.
    for node in lab.nodes:
        lab.on(node, "date -s '+400 days' > /dev/null && systemctl start chrony")
    wanted = [("certificates", node) for node in ("", *lab.nodes)]
    found = await_findings(lab, *wanted)
    assert {"has expired" in found[each]["what"] for each in wanted} == {True}
    # One command, which ends when the lab is Ready.
    assert {found[each]["repair"] for each in wanted} == {f"klab certs renew {lab.name}"}
    done = repair(lab, found["certificates", ""])
    assert done.returncode == 0, done.stdout + done.stderr
    # The lab's bootstrap token has ended, too.
    done = repair(lab, await_findings(lab, ("token", ""))["token", ""])
    assert done.returncode == 0, done.stdout + done.stderr
    lab.kubectl("create", "configmap", "renewed")
    for words in (["kubectl"], ["sudo", "kubectl"]):  # with the copies of admin.conf on the node
        assert "configmap/renewed" in lab.klab("ssh", lab.name, "cp1", "--", *words, "get", "cm", "-o", "name").stdout
    await_health(lab)
