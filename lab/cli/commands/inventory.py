"""klab inventory"""

from __future__ import annotations

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ansible", "ssh", "hosts"]),
    default="ansible",
    show_default=True,
    help="An Ansible inventory, an ssh configuration, or lines for /etc/hosts.",
)
@click.option("--json", "as_json", is_flag=True, help="The Ansible inventory as JSON; Ansible takes that, too.")
def command(lab: str | None, kind: str, as_json: bool) -> None:
    """Print how a lab's nodes are reached, for Ansible, for ssh and scp, or for /etc/hosts.

    What is printed works from your ordinary shell. Where the lab is on klab's private
    libvirt, ssh goes through `klab connect`, which the printed configuration calls.

    Ansible's groups: control_planes, workers, and klab_LAB for all of them, with "_" for "-".

    \b
    Examples:
      klab inventory > lab.yaml && ansible -i lab.yaml all -m ping
      klab inventory ha-3m2w --format ssh > lab.ssh && scp -F lab.ssh notes.txt cp1:
      klab inventory 1m2w --format hosts | sudo tee -a /etc/hosts
    """
    from lab.app.inventory import is_hidden, ways
    from lab.app.labs import Labs
    from lab.cli.terminal.output import echo, echo_json, note
    from lab.render.inventory import ansible_inventory, render_ansible, render_host_lines, render_ssh

    if as_json and kind != "ansible":
        raise UsageError(f"--format {kind} has no JSON form", hint="leave out one of --json and --format")
    found = Labs().find(lab)
    if kind == "hosts":
        echo(render_host_lines(found.plan), nl=False)
        if is_hidden(found):
            note(f"these addresses exist in klab's private libvirt only; klab inventory {found.name} --format ssh")
    elif kind == "ssh":
        echo(render_ssh(found.plan, ways(found)), nl=False)
    elif as_json:
        echo_json(ansible_inventory(found.plan, found.record.id, ways(found)))
    else:
        echo(render_ansible(found.plan, found.record.id, ways(found)), nl=False)
