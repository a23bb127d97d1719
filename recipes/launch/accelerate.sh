#!/bin/bash
# As torchrun.sh, by accelerate: PROCESSES counts those of all machines.
#
#   MACHINES=2 MACHINE=0 FIRST=10.0.0.1 PROCESSES=16 bash recipes/launch/accelerate.sh recipe.yaml -o runs/first
exec accelerate launch \
  --multi_gpu \
  --num_machines "${MACHINES:-1}" \
  --machine_rank "${MACHINE:-0}" \
  --num_processes "${PROCESSES:?how many, on all machines}" \
  --main_process_ip "${FIRST:-127.0.0.1}" \
  --main_process_port "${PORT:-29400}" \
  --mixed_precision no \
  --dynamo_backend no \
  -m qtune train "$@"
