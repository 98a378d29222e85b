"""Snapshots: a whole lab at one moment, kept and brought back as one thing.

`take`, `restore` and `remove` act, under the lab's lock and a journal that `recover`
reads after a kill. `manifest`, `tree`, `names` and `check` are pure.
"""
