"""Where a box and its Kubernetes can come from, by name.

bundle    a box that somebody else has built: in a bundle, or copied from another store
mirror    upstream's programs and images at addresses that a person names: a server, a registry, a folder, a stick
release   upstream's own programs, by published checksum, and images, by digest
source    compiled from Go modules, packed by klab
"""

AUTO, BUNDLE, MIRROR, RELEASE, SOURCE = "auto", "bundle", "mirror", "release", "source"
SOURCES = (AUTO, BUNDLE, MIRROR, RELEASE, SOURCE)
