"""Snapshots: a whole lab at one moment, kept and restored as one thing.

Other packages call `commands`. `take`, `restore` and `remove` act on a lab whose lock is held, under a journal
that `recover` reads after a kill. `manifest`, `tree`, `names` and `check` are pure.
"""
