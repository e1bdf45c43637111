#!/bin/sh
# Starts the server on this repository. Options are passed on: ./run.sh --http-port=9000
set -eu
repository=$(cd "$(dirname "$0")" && pwd)
# The libtorch backend knows torch's ops alone: the libraries of others are loaded before it.
for library in "$repository"/*/*/libgnnscript*.so; do
  if [ -e "$library" ] && [ ! -e "$(dirname "$library")/model.py" ]; then
    LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD:}$library"
    export LD_PRELOAD
  fi
done
exec tritonserver --model-repository="$repository" "$@"
