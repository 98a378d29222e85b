"""klab kubeconfig"""

from __future__ import annotations

import click


@click.command()
@click.argument("lab", required=False)
@click.option(
    "--merge",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Merge it into FILE; without one into the file that kubectl config would change (KUBECONFIG, ~/.kube/config).",
)
@click.option("--path", is_flag=True, help="Print where the lab's own kubeconfig is.")
def command(lab: str | None, merge: str | None, path: bool) -> None:
    """Print a lab's kubeconfig, or merge it into your own as context klab-LAB.

    Merging keeps everything else in the file, its owner and its mode, keeps a backup
    (FILE.before-klab), and does not change the current context where there is one.

    \b
    Examples:
      klab kubeconfig > lab.kubeconfig
      klab kubeconfig 1m2w --merge
      export KUBECONFIG=$(klab kubeconfig 1m2w --path)
    """
    from pathlib import Path

    from lab.app import kubeconfig
    from lab.cli.terminal.output import echo, note
    from lab.errors import UsageError
    from lab.store import Home
    from lab.text import visible

    home = Home.default()
    if merge and lab is None and merge in {folder.name for folder in home.existing()}:
        lab, merge = merge, ""  # klab kubeconfig --merge 1m2w: a lab's name, not a file's
    if path and merge is not None:
        raise UsageError("either --path or --merge", hint="--path prints where it is, --merge puts it into your own")
    folder = home.pick(lab)
    text = kubeconfig.read(folder)
    if path:
        echo(folder.kubeconfig)
    elif merge is None:
        echo(text, nl=False)
    else:
        changed = kubeconfig.merge(folder, Path(merge) if merge else None)
        for file, backup in changed:
            before = f"; what it was before: {visible(str(backup))}" if backup else ""
            note(f"merged into {visible(str(file))}{before}")
        if not changed:
            note("nothing to change: it was merged before")
        note(f"kubectl config use-context klab-{folder.name}")
    if exceptions := kubeconfig.beside_a_proxy(folder):
        note(f"a proxy is set here; kubectl reaches the lab with: export {exceptions}")
