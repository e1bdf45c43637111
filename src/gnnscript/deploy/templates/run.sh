#!/bin/sh
# Starts the server on this repository. Options are passed on: ./run.sh --http-port=9000
set -eu
repository=$(cd "$(dirname "$0")" && pwd)
# The libtorch backend knows torch's ops alone: the libraries of others are loaded before it, and
# find torch where that backend has it. Models of the Python backend load theirs themselves.
loaded=
for library in "$repository"/*/*/libgnnscript*.so; do
  if [ ! -e "$library" ] || [ -e "$(dirname "$library")/model.py" ]; then continue; fi
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
# Large tensors come and go with each request: in large pages that costs a third less time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
server=$(command -v tritonserver) || {
  echo "run.sh: there is no tritonserver on the path" >&2
  exit 1
}
[ -n "$loaded" ] || exec "$server" --model-repository="$repository" "$@"
case $repository in *[[:space:]:]*)
  echo "run.sh: '$repository' cannot be preloaded from; move it to a path without spaces and ':'" >&2
  exit 1
esac
# As LD_PRELOAD does, but in the server alone: the processes of Python models have a torch of theirs.
linker=$(ldd "$server" | sed -n 's|^[[:space:]]*\(/[^ ]*/ld[^ /]*\) (.*|\1|p')
if [ -z "$linker" ]; then
  echo "run.sh: '$server' is no executable that libraries can be loaded into" >&2
  exit 1
fi
torch=${TORCH_LIBRARIES:-/opt/tritonserver/backends/pytorch}
exec "$linker" --preload "${loaded# }" \
  --library-path "$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
  "$server" --model-repository="$repository" "$@"
