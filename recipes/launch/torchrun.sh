#!/bin/bash
# Several machines by torchrun: the same line on each of them, with its own MACHINE.
#
#   MACHINES=2 MACHINE=0 FIRST=10.0.0.1 bash recipes/launch/torchrun.sh recipe.yaml -o runs/first
#   MACHINES=2 MACHINE=1 FIRST=10.0.0.1 bash recipes/launch/torchrun.sh recipe.yaml -o runs/first
#
# The run folder must lie where all see it. torchrun exits with 1 whatever qtune's code was (that
# stands in its lines), takes TERM for all, and knows no USR1: send that to the process of rank 0.
# It kills what is not done 30 seconds after TERM; torch 2.13 and later: --shutdown-timeout SECONDS.
exec torchrun \
  --nnodes "${MACHINES:-1}" \
  --node-rank "${MACHINE:-0}" \
  --nproc-per-node "${GPUS:-gpu}" \
  --master-addr "${FIRST:-127.0.0.1}" \
  --master-port "${PORT:-29400}" \
  -m qtune train "$@"
