#!/bin/sh
# Starts the server on this repository. Options are passed on: ./run.sh --http-port=9000
set -eu
repository=$(cd "$(dirname "$0")" && pwd)
# The libtorch backend knows torch's ops alone: the libraries of others are loaded before it, and
# find torch where that backend has it. Models of the Python backend load theirs themselves.
loaded=
for library in "$repository"/*/*/libgnnscript*.so; do
  [ -e "$library" ] && [ ! -e "$(dirname "$library")/model.py" ] || continue
  name=$(basename "$library")
  for other in $loaded; do
    if [ "$(basename "$other")" = "$name" ]; then
      cmp -s "$library" "$other" || {
        echo "run.sh: $library and $other differ; export these models again, with one gnnscript" >&2
        exit 1
      }
      continue 2
    fi
  done
  loaded="$loaded $library"
done
if [ -n "$loaded" ]; then
  case $repository in *[[:space:]:]*)
    echo "run.sh: '$repository' cannot be preloaded from; move it to a path without spaces and ':'" >&2
    exit 1
  esac
  torch=${TORCH_LIBRARIES:-/opt/tritonserver/backends/pytorch}
  export LD_LIBRARY_PATH="$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export LD_PRELOAD="${loaded# }${LD_PRELOAD:+ $LD_PRELOAD}"
fi
# Large tensors come and go with each request: in large pages that costs a third less time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
exec tritonserver --model-repository="$repository" "$@"
