#!/bin/sh
# Options and addresses are curl's; anything else that is a program is run.
set -eu
case ${1-} in
  -*) set -- curl "$@" ;;
  *) command -v "${1-curl}" >/dev/null || set -- curl "$@" ;;
esac
exec "$@"
