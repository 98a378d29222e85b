"""klab plan"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lab.plan.model import Plan
    from lab.scenario.cloud_images import CloudImage


@click.command()
@click.argument("scenario")
@click.option("--name", help="Name of the lab; the scenario's own when left out.")
@click.option("--seat", type=click.IntRange(min=0), default=0, help="The student's number: addresses derive from it.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def command(scenario: str, name: str | None, seat: int, as_json: bool) -> None:
    """Show what create would make and whether it fits on this machine. Nothing is changed.

    \b
    Examples:
      klab plan 1m2w
      klab plan ./lesson3.yaml --seat 4
      klab plan ha-3m2w --json
    """
    from lab.app import plans
    from lab.cli.terminal.output import echo, echo_json
    from lab.plan.file import to_data

    planned = plans.plan(scenario, name=name, seat=seat)
    plan, problems = planned.plan, planned.problems
    if as_json:
        needs = {"cpus": plan.cpus, "memory": plan.memory, "disk": plan.disk}
        answer = {"fits": not problems, "problems": problems, "lacking": planned.lacking}
        images = {"images_to_fetch": list(planned.to_fetch)} if plan.images else {}
        addons = {"addons_to_fetch": list(planned.addons_to_fetch)} if plan.named_addons else {}
        echo_json({"plan": to_data(plan), "needs": needs, **answer, **images, **addons})
        return
    echo(_describe(plan, planned.image))
    if planned.lacking:
        echo("No box holds all of it, so klab create refuses it; missing:")
        for line in planned.lacking:
            echo(f"  {line}")
    if planned.to_fetch:
        echo("klab create fetches these images from their registries (klab image fetch does so now):")
        for line in planned.to_fetch:
            echo(f"  {line}")
    if planned.addons_to_fetch:
        names = ", ".join(planned.addons_to_fetch)
        echo(f"klab create fetches or compiles the images of these add-ons (klab addon fetch does so now): {names}")
    echo("It fits on this machine." if not problems else "It does not fit on this machine:")
    for line in (*problems, *planned.warnings):
        echo(f"  {line}")


def _describe(plan: Plan, image: CloudImage | None) -> str:
    from lab.cli.terminal.output import table
    from lab.scenario.sizes import human

    n = plan.networks
    rows = [[x.name, x.role, str(x.address), str(x.cpus), human(x.memory), f"{x.disk} GiB", x.mac] for x in plan.nodes]
    network = ["network", f"{n.cidr} (this machine: {n.gateway}), Vagrant's own: {n.management_cidr}"]
    facts = [
        *(_image_lines(plan, image, network) if image else _cluster_lines(plan, network)),
        ["needs", f"{plan.cpus} CPUs, {human(plan.memory)} RAM, up to {plan.disk} GiB disk"],
    ]
    width = max(len(fact[0]) for fact in facts)
    return "\n".join(
        (
            f"{plan.name}: {len(plan.nodes)} nodes, scenario {plan.scenario}, seat {plan.seat}",
            "",
            table(["node", "role", "address", "cpus", "ram", "disk", "mac"], rows),
            "",
            *(f"{name.ljust(width)}  {text}" for name, text in facts),
            "",
        )
    )


def _image_lines(plan: Plan, image: CloudImage, network: list[str]) -> list[list[str]]:
    box = f"{plan.box}, the cloud image of {image.system}: nothing of Kubernetes is in it"
    return [["box", box], *(["", note] for note in image.notes), network]


def _cluster_lines(plan: Plan, network: list[str]) -> list[list[str]]:
    from lab.cli.terminal.words import unenforced
    from lab.plan.needs import enforces_policies

    k, balancer = plan.kubernetes, plan.load_balancer
    address, port = plan.api_endpoint
    api = f"https://{address}:{port}"
    if balancer:
        api += f" (virtual IP, VRRP id {balancer.vrid}, on {', '.join(balancer.nodes)})"
    return [
        ["kubernetes", f"{k.version}, {k.runtime}, pod network {k.cni}, bootstrap {plan.bootstrap}, box {plan.box}"],
        ["api server", api],
        network,
        ["pods", str(k.pod_cidr)],
        ["services", f"{k.service_cidr} (DNS {k.dns_address}), kube-proxy in the mode {k.proxy_mode}"],
        *([["images", ", ".join(plan.images)]] if plan.images else []),
        *([["add-ons", ", ".join(plan.addons)]] if plan.addons else []),
        *([["policies", unenforced(k.cni)]] if plan.bootstrap == "full" and not enforces_policies(plan) else []),
    ]
