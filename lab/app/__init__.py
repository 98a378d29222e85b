"""What klab can do, for any program: a command of `klab` calls a function of this package and prints what it returns.

    labs            find a lab, get to where its machines are, finish what a killed klab has left there
    create          make a lab from a scenario          destroy        remove one
    power           stop, start and reboot              scale          add, remove and replace nodes
    snapshots       take, restore, list, compare        certificates   show and renew
    status, doctor  look at a lab, at this machine      boxes          build, find and verify boxes
    bundles         a lab as one file: export, import, list

A function takes plain values, sends its events to a `Listener`, returns a value and raises `LabError`. Nothing here
parses a command line, prints, or ends the process. No module of this package is imported before it is asked for:
`from lab.app.create import Request, create`.
"""
