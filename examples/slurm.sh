#!/bin/bash
# A study on two nodes of eight GPUs: sbatch examples/slurm.sh study.toml runs/NAME
# STUDY, its images and the run directory must lie on a file system that all nodes see.
#SBATCH --job-name=vitscope
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_PER_NODE))

# one torchrun per node; each starts a process per GPU. A process that dies takes the others down,
# and torchrun starts all of them again, up to three times: they continue from what is on the disk.
srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "$SLURM_GPUS_PER_NODE" \
  --max-restarts 3 \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$first_node:29500" \
  -m vitscope run "$1" --out "$2"
